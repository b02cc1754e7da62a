"""Fetching a file once: a checksum, several mirrors or one to go on with, and never half a file under its name."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..io.errors import FileFormatError

TIMEOUT = 20.0  # seconds without an answer before a server is given up
SLOWEST = 2000.0  # bytes per second, over a TIMEOUT, below which it is given up too
_CHUNK = 1 << 16


class DownloadError(OSError):
    """No server gave the file; the message says what each answered and what to do."""


def cache_dir(kind: str) -> Path:
    """Where files of this kind are kept: a folder in FASTCNN_HOME, or in ~/.cache/fastcnn. OSError without a home."""
    home = os.environ.get("FASTCNN_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "fastcnn")
    try:
        return Path(home).expanduser() / kind
    except RuntimeError:
        raise OSError(f"{home}: this user has no home folder; FASTCNN_HOME may name another") from None


def fetch_gzip(
    name: str,
    mirrors: Sequence[str],
    folder: Path,
    *,
    sha256: str,
    size: int,
    timeout: float = TIMEOUT,
) -> Path:
    """Download `name` (a .gz file) from the first mirror that has it whole; returns its path.

    mirrors: URLs that `name` is appended to, tried in turn. sha256 and size (bytes) are those of the
    unpacked content, so a mirror may have packed it differently. The file appears in `folder` under
    its name only when it is whole and right; until then it is `name.<process>.part`.
    Raises DownloadError, with every mirror's failure, and OSError if `folder` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{name}.{os.getpid()}.part"
    failures = []
    try:
        for mirror in mirrors:
            url = mirror.rstrip("/") + "/" + name
            try:
                with _get(url, timeout) as answer, open(part, "wb") as file:
                    _unpack(_chunks(answer, timeout, _Bar(name)), file, sha256, size)
                    _sync(file)
            except _Rejected as error:
                failures.append(f"  {url}: {error}")
                continue
            os.replace(part, folder / name)
            return folder / name
    finally:
        part.unlink(missing_ok=True)
    raise DownloadError(
        f"could not download {name}:\n"
        + "\n".join(failures)
        + f"\nWithout a network, put {name} (or the unpacked {name.removesuffix('.gz')}) into\n"
        f"  {folder}\nor name the folder that has it (root=..., --data-dir, FASTCNN_DATA)."
    )


def fetch_hashed(
    url: str, folder: Path, *, sha256: str, timeout: float = TIMEOUT, progress: bool = True, advice: str = ""
) -> Path:
    """The file of this URL in `folder`, downloaded if it is not there; returns its path.

    sha256: the beginning of the content's hash, in hexadecimal; a file that is there already is held against it too.
    While incomplete the file is `name.part`: a later call goes on where it ends, or starts over if the server cannot
    send the rest or what came together is wrong. Processes that want the same file wait for each other.
    Raises DownloadError (`advice` ends its message), FileFormatError if the file in `folder` is another one, and
    OSError if `folder` cannot be written.
    """
    name = url.rsplit("/", 1)[-1]
    path, part = folder / name, folder / f"{name}.part"
    if path.is_file():
        verify(path, sha256)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _alone(part) as file:
            if not path.is_file():  # else whoever was waited for has fetched it
                try:
                    _complete(url, file, sha256, timeout, progress)
                except _Rejected as error:
                    kept = file.seek(0, os.SEEK_END)
                    more = f"\n{kept:,} bytes of it are kept: the next attempt goes on from there." if kept else ""
                    raise DownloadError(
                        f"could not download {name}:\n  {url}: {error}{more}\n"
                        f"Without a network, put {name} into\n  {folder}\n{advice}"
                    ) from None
                os.replace(part, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk: the system does not say where
            raise OSError(error.errno, error.strerror, str(part)) from None
        raise
    return path


def verify(path: Path, sha256: str) -> None:
    """FileFormatError unless the file's hash begins with `sha256`."""
    with open(path, "rb") as file:
        found = _digest(file).hexdigest()
    if not found.startswith(sha256):
        raise FileFormatError(
            f"{path}: its sha256 begins {found[: len(sha256)]}, expected {sha256}: the file is damaged or another one; "
            f"delete it, and the next attempt downloads it again"
        )


class _Rejected(Exception):
    """This server's answer is of no use; the text says why."""


class _Unfit(Exception):
    """What the server sent does not go on where the part ends."""


@contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """The file, to be read and appended to, while no other process or thread has it; removed at the end if empty."""
    import fcntl

    while True:
        file = open(part, "a+b")  # noqa: SIM115 - closed below
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: the hash still finds what two writers spoil
            break
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
                break
        except FileNotFoundError:
            pass
        file.close()  # whoever had it has finished, and renamed or removed it
    with file:
        try:
            yield file
        finally:
            if os.fstat(file.fileno()).st_size == 0:
                part.unlink(missing_ok=True)


def _complete(url: str, file: BinaryIO, sha256: str, timeout: float, progress: bool) -> None:
    """Append to `file` what it lacks of the content; _Rejected if that fails."""
    digest = _digest(file)
    have = file.tell()
    if have and digest.hexdigest().startswith(sha256):
        return
    if have:
        try:
            return _append(url, file, have, digest, sha256, timeout, progress)
        except _Unfit:
            file.truncate(0)
    try:
        _append(url, file, 0, hashlib.sha256(), sha256, timeout, progress)
    except _Unfit as error:
        file.truncate(0)
        raise _Rejected(str(error)) from None


def _append(url: str, file: BinaryIO, have: int, digest: Any, sha256: str, timeout: float, progress: bool) -> None:
    """Ask for the bytes behind the first `have`, whose digest is given, and append them."""
    with _get(url, timeout, have) as answer:
        if have and answer.status == 206:
            if (answer.headers.get("Content-Range") or "").split("-")[0] != f"bytes {have}":
                raise _Unfit("the server sent another range than asked for")
        else:  # everything comes once more
            have, digest = 0, hashlib.sha256()
        first = True
        for chunk in _chunks(answer, timeout, _Bar(Path(file.name).stem, have, progress)):
            if first and have == 0:
                if chunk.lstrip()[:1] == b"<":
                    raise _Rejected(f"a web page, not the file (it begins {_excerpt(chunk)})")
                file.truncate(0)
            first = False
            file.write(chunk)
            digest.update(chunk)
        _sync(file)
    if not digest.hexdigest().startswith(sha256):
        raise _Unfit(f"wrong sha256: it begins {digest.hexdigest()[: len(sha256)]}, expected {sha256}")


def _digest(file: BinaryIO) -> Any:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _get(url: str, timeout: float, start: int = 0) -> Iterator[Any]:
    """The answer to a request for the content from byte `start` on; _Rejected or _Unfit if there is none."""
    import http.client  # here: `import fastcnn` is to stay fast
    import ssl
    import urllib.error
    import urllib.request

    if not url.startswith(("http://", "https://")):
        raise _Rejected("not a URL that begins http:// or https://")
    headers = {"User-Agent": "fastcnn", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            raise _Unfit("the file is not that long") from None
        raise _Rejected(f"HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _Rejected(f"no connection ({error.reason})") from None
    except (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        raise _Rejected(f"the connection broke ({error or type(error).__name__})") from None


def _chunks(answer: Any, timeout: float, bar: _Bar) -> Iterator[bytes]:
    """The answer's bytes as they come; _Rejected if they come too slowly or end too soon."""
    promised = answer.headers.get("Content-Length")
    bar.total = bar.done + int(promised) if promised and promised.isdigit() else 0
    received, window, at_window = 0, time.monotonic(), 0
    try:
        while chunk := _read(answer):
            received += len(chunk)
            yield chunk
            now = time.monotonic()
            if now - window > timeout:
                if (received - at_window) / (now - window) < SLOWEST:
                    raise _Rejected(f"too slow (under {SLOWEST / 1000:g} kB/s)")
                window, at_window = now, received
            bar.show(len(chunk))
    finally:
        bar.close()
    if promised is not None and received != int(promised):
        raise _Rejected(f"truncated after {received:,} of {int(promised):,} bytes")


def _read(answer: Any) -> bytes:
    try:
        return answer.read1(_CHUNK)
    except OSError as error:
        raise _Rejected(f"the connection broke ({error})") from None


def _unpack(chunks: Iterator[bytes], file: BinaryIO, sha256: str, size: int) -> None:
    """Write a .gz file as it comes, checking what is in it."""
    unpack = zlib.decompressobj(wbits=31)
    digest, unpacked, received = hashlib.sha256(), 0, 0
    for chunk in chunks:
        file.write(chunk)
        received += len(chunk)
        try:
            data = unpack.decompress(chunk, size - unpacked + 1)
        except zlib.error as error:
            if unpacked:
                raise _Rejected(f"damaged after {received:,} bytes ({error})") from None
            raise _Rejected(f"not a gzip file (it begins {_excerpt(chunk)})") from None
        digest.update(data)
        unpacked += len(data)
        if unpacked > size or unpack.unused_data:
            raise _Rejected(f"longer than the {size:,} bytes expected")
    if not unpack.eof:
        raise _Rejected(f"truncated after {received:,} bytes")
    if unpacked != size:
        raise _Rejected(f"{unpacked:,} bytes unpacked, {size:,} expected")
    if digest.hexdigest() != sha256:
        raise _Rejected(f"wrong sha256 {digest.hexdigest()}, expected {sha256}")


def _excerpt(chunk: bytes) -> str:
    return repr("".join(c if c.isprintable() else "?" for c in chunk[:40].decode("latin-1")))


class _Bar:
    """One line of progress on a terminal's stderr; silent elsewhere."""

    def __init__(self, name: str, done: int = 0, on: bool = True) -> None:
        self.name, self.done, self.total = name, done, 0
        self.on = on and sys.stderr.isatty()
        self.last = 0.0

    def show(self, more: int) -> None:
        self.done += more
        now = time.monotonic()
        if not self.on or now - self.last < 0.1:
            return
        self.last = now
        part = f"{100 * self.done // self.total:3d} %" if self.total else ""
        sys.stderr.write(f"\r{self.name}: {self.done / 1e6:6.1f} MB {part}")
        sys.stderr.flush()

    def close(self) -> None:
        if self.on:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r" + " " * width + "\r")
            sys.stderr.flush()
