"""Downloads of weights from a server of our own that is cut off, lies, or is not there."""

import http.server
import threading

import numpy as np
import pytest
import test_torch_file as by_hand
from weight_files import same, sha, write_pth

from fastcnn import datasets, nn
from fastcnn.data import download
from fastcnn.io import FileFormatError
from fastcnn.models.weights import Weights, WeightsEnum, pretrained

STATE = {
    "weight": np.random.default_rng(1).standard_normal((300, 400), np.float32),
    "bias": np.random.default_rng(2).standard_normal(300, np.float32),
}


def make(inputs=400, num_classes=300):
    return nn.Linear(inputs, num_classes)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCNN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FASTCNN_WEIGHTS_URL", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "home" / "weights"


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by name, in the way that `manner` says; `asked` has the Range of every request."""

    def reset(self):
        self.files, self.asked, self.manner, self.cut = {}, [], "good", None


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, manner = self.server, self.server.manner
        span = self.headers.get("Range")
        server.asked.append(span)
        body = server.files.get(self.path.rsplit("/", 1)[-1])
        if body is None:
            return self.answer(404, b"")
        if manner in ("html503", "html200"):
            return self.answer(int(manner[4:]), b"<!DOCTYPE html><html>Sorry</html>", ("Retry-After", "5"))
        start = int(span[6:-1]) if span and manner != "no ranges" else 0
        if start > len(body) or (start and manner == "416"):
            return self.answer(416, b"")
        if not start:
            return self.answer(200, body)
        shown = start + 3 if manner == "other range" else start
        self.answer(206, body[start:], ("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}"))

    def answer(self, status, body, *headers):
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: self.server.cut])

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def serving():
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Shop:
    """One published file and a builder that takes it."""

    def __init__(self, server, cache, tmp_path):
        self.server, self.cache = server, cache
        server.reset()
        self.sell(write_pth(tmp_path / "made", STATE).read_bytes())

    def sell(self, data, digest=None):
        self.data, self.name = data, f"linear-{(digest or sha(data))[:8]}.pth"
        self.server.files = {self.name: data}
        url = f"http://127.0.0.1:{self.server.server_port}/models/{self.name}"
        self.enum = WeightsEnum("Linear_Weights", {"V1": Weights(url, num_classes=300)})
        self.build = pretrained(self.enum)(make)

    @property
    def part(self):
        return self.cache / f"{self.name}.part"

    def buy(self):
        model = self.build(weights="V1")
        same(model, STATE)
        assert [p.name for p in self.cache.iterdir()] == [self.name] and (
            self.cache / self.name
        ).read_bytes() == self.data

    def refuses(self, message, error=datasets.DownloadError, kept=None):
        with pytest.raises(error, match=message) as raised:
            self.build(weights="V1")
        if error is datasets.DownloadError:
            assert f"put {self.name} into" in str(raised.value) and str(self.cache) in str(raised.value)
            assert not (self.cache / self.name).exists()
            assert (self.part.stat().st_size if self.part.exists() else None) == kept
            assert ("the next attempt goes on" in str(raised.value)) == (kept is not None)


@pytest.fixture
def shop(serving, cache, tmp_path):
    return Shop(serving, cache, tmp_path)


def test_download_once_then_from_the_cache(shop):
    shop.buy()
    shop.server.files = {}
    shop.buy()
    assert shop.server.asked == [None]


def test_mirror(shop, monkeypatch):
    monkeypatch.setattr(shop.enum.V1.value, "url", "http://127.0.0.1:9/" + shop.name)
    monkeypatch.setenv("FASTCNN_WEIGHTS_URL", f"http://127.0.0.1:{shop.server.server_port}/mirror/")
    shop.buy()
    shop.cache.joinpath(shop.name).unlink()
    monkeypatch.setenv("FASTCNN_WEIGHTS_URL", str(shop.cache))
    shop.refuses("not a URL that begins http")


def test_cut_connection_goes_on(shop):
    half, most = len(shop.data) // 2, len(shop.data) * 3 // 4
    shop.server.cut = half
    shop.refuses(f"truncated after {half:,} of {len(shop.data):,} bytes", kept=half)
    shop.server.cut = most - half
    shop.refuses("truncated", kept=most)
    shop.server.cut = None
    shop.buy()
    assert shop.server.asked == [None, f"bytes={half}-", f"bytes={most}-"]


@pytest.mark.parametrize("manner", ["no ranges", "416", "other range"])
def test_server_that_cannot_go_on_starts_over(shop, manner):
    shop.cache.mkdir(parents=True)
    shop.part.write_bytes(shop.data[:1000])
    shop.server.manner = manner
    shop.buy()
    assert shop.server.asked == (["bytes=1000-"] if manner == "no ranges" else ["bytes=1000-", None])


@pytest.mark.parametrize("length", [1000, 10**7])
def test_wrong_part_starts_over(shop, length):
    shop.cache.mkdir(parents=True)
    shop.part.write_bytes(b"x" * length)
    shop.buy()
    assert shop.server.asked == [f"bytes={length}-", None]


def test_whole_part_needs_no_network(shop):
    shop.cache.mkdir(parents=True)
    shop.part.write_bytes(shop.data)
    shop.buy()
    assert shop.server.asked == []


@pytest.mark.parametrize(
    "manner, message", [("html503", "HTTP 503"), ("html200", "a web page, not the file .it begins '<!DOCTYPE html>")]
)
def test_web_page_instead_of_the_file(shop, manner, message):
    shop.server.manner = manner
    shop.refuses(message)
    shop.part.write_bytes(shop.data[:1000])
    shop.refuses(message, kept=1000)  # what there is is not thrown away for a page
    shop.server.manner = "good"
    shop.buy()


def test_wrong_hash(shop):
    shop.sell(shop.data[:-1] + b"?", digest=sha(shop.data))
    shop.refuses(f"wrong sha256: it begins {sha(shop.server.files[shop.name])[:8]}, expected {shop.name[7:15]}")
    shop.sell(shop.data[:-100], digest="0" * 64)  # the server sends all it has: only the hash can tell
    shop.refuses("wrong sha256.*expected 00000000")


def test_missing_and_offline(shop, monkeypatch):
    shop.server.files = {}
    shop.refuses("HTTP 404")
    monkeypatch.setenv("FASTCNN_WEIGHTS_URL", "http://127.0.0.1:9")
    shop.refuses(rf"(?s)127\.0\.0\.1:9/{shop.name}: no connection.*FASTCNN_HOME.*weights=\"")
    shop.part.write_bytes(shop.data[:7])
    shop.refuses("no connection", kept=7)


def test_hostile_file(shop, tmp_path):
    program = b"\x80\x02" + by_hand.name("os", "system") + b"(" + by_hand.text("touch hacked") + b"tR."
    shop.sell(by_hand.write_zip(tmp_path / "hostile", program).read_bytes())
    shop.refuses("os.system", FileFormatError)


def test_file_of_another_network(shop, tmp_path):
    shop.sell(write_pth(tmp_path / "other", {"w": STATE["bias"]}).read_bytes())
    shop.refuses("do not fit the model: weight is missing in the file", FileFormatError)
    shop.sell(b"PK\x03\x04" + b"\0" * 99)
    shop.refuses("damaged", FileFormatError)


def test_damaged_file_in_the_cache(shop):
    shop.buy()
    file = shop.cache / shop.name
    file.write_bytes(shop.data[:-5])
    shop.refuses(rf"{shop.name}: its sha256 begins .*, expected .*delete it", FileFormatError)
    assert file.read_bytes() == shop.data[:-5] and shop.server.asked == [None]


def test_folder_that_cannot_be_written(shop, tmp_path):
    (tmp_path / "home").write_text("a file")
    shop.refuses("home", NotADirectoryError)


def test_two_at_once_download_once(shop):
    models_, gate = [], threading.Barrier(4)

    def work():
        gate.wait()
        models_.append(shop.build(weights="V1"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(models_) == 4 and shop.server.asked == [None]
    for model in models_:
        same(model, STATE)
    shop.buy()


def test_full_disk(shop, monkeypatch):
    def write(chunks, *rest):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_sync", write)
    with pytest.raises(OSError, match=r"No space left on device: '.*\.part'"):
        shop.build(weights="V1")
