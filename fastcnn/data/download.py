"""Fetching a file once: several mirrors, a checksum, and never half a file under its name."""

from __future__ import annotations

import os
import shutil
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

TIMEOUT = 20.0  # seconds without an answer before the next mirror is tried
SLOWEST = 2000.0  # bytes per second, over a TIMEOUT, below which a mirror is given up
_CHUNK = 1 << 16


class DownloadError(OSError):
    """No mirror gave the file; the message says what each answered and what to do."""


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
                _download(url, part, sha256, size, timeout)
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


class _Rejected(Exception):
    """This mirror's answer is of no use; the text says why."""


def _download(url: str, part: Path, sha256: str, size: int, timeout: float) -> None:
    """Write url to `part`, fsynced, checking the unpacked bytes as they come; or raise _Rejected."""
    import http.client  # here: `import fastcnn` is to stay fast
    import ssl
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, headers={"User-Agent": "fastcnn"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer, open(part, "wb") as file:
            _copy(answer, file, sha256, size, timeout)
            file.flush()
            os.fsync(file.fileno())
    except urllib.error.HTTPError as error:
        raise _Rejected(f"HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _Rejected(f"no connection ({error.reason})") from None
    except (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        raise _Rejected(f"the connection broke ({error or type(error).__name__})") from None


def _copy(answer, file, sha256: str, size: int, timeout: float) -> None:  # type: ignore[no-untyped-def]
    import hashlib

    unpack = zlib.decompressobj(wbits=31)
    digest, unpacked, received = hashlib.sha256(), 0, 0
    window, at_window = time.monotonic(), 0
    bar = _Bar(Path(file.name).name.split(".", 1)[0], answer.headers.get("Content-Length"))
    while True:
        chunk = answer.read1(_CHUNK)
        if not chunk:
            break
        file.write(chunk)
        received += len(chunk)
        try:
            data = unpack.decompress(chunk, size - unpacked + 1)
        except zlib.error as error:
            if unpacked:
                raise _Rejected(f"damaged after {received:,} bytes ({error})") from None
            start = "".join(c if c.isprintable() else "?" for c in chunk[:40].decode("latin-1"))
            raise _Rejected(f"not a gzip file (it begins {start!r})") from None
        digest.update(data)
        unpacked += len(data)
        if unpacked > size or unpack.unused_data:
            raise _Rejected(f"longer than the {size:,} bytes expected")
        now = time.monotonic()
        if now - window > timeout:
            if (received - at_window) / (now - window) < SLOWEST:
                raise _Rejected(f"too slow (under {SLOWEST / 1000:g} kB/s)")
            window, at_window = now, received
        bar.show(received)
    bar.close()
    promised = answer.headers.get("Content-Length")
    if not unpack.eof or (promised is not None and received != int(promised)):
        raise _Rejected(f"truncated after {received:,} bytes")
    if unpacked != size:
        raise _Rejected(f"{unpacked:,} bytes unpacked, {size:,} expected")
    if digest.hexdigest() != sha256:
        raise _Rejected(f"wrong sha256 {digest.hexdigest()}, expected {sha256}")


class _Bar:
    """One line of progress on a terminal's stderr; silent elsewhere."""

    def __init__(self, name: str, total: str | None) -> None:
        self.name = name
        self.total = int(total) if total and total.isdigit() else 0
        self.on = sys.stderr.isatty()
        self.last = 0.0

    def show(self, received: int) -> None:
        now = time.monotonic()
        if not self.on or now - self.last < 0.1:
            return
        self.last = now
        part = f"{100 * received // self.total:3d} %" if self.total else ""
        sys.stderr.write(f"\r{self.name}: {received / 1e6:6.1f} MB {part}")
        sys.stderr.flush()

    def close(self) -> None:
        if self.on:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r" + " " * width + "\r")
            sys.stderr.flush()
