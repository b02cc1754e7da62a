"""Data sets, loaders, the IDX format and downloads (from a server of our own)."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import importlib
import struct
import threading
import time

import numpy as np
import pytest

from fastcnn import datasets
from fastcnn.data import download
from fastcnn.data.digits import resize
from fastcnn.data.loader import DataLoader
from fastcnn.io.errors import FileFormatError

# The package's module `mnist` is hidden by the function of the same name.
mnist_module = importlib.import_module("fastcnn.data.mnist")


# ---- Dataset ------------------------------------------------------------------------------------
@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (23, 2, 5, 3), np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.arange(23) % 7


def test_dataset_scales_bytes_and_floats_alike(images, labels):
    scale, shift = 1 / 77.5, -0.42
    want = images.astype(np.float64) * scale + shift
    for array in (images, images.astype(np.float32), images.astype(">f8"), np.asfortranarray(images)):
        x, y = datasets.Dataset(array, labels, scale, shift)
        assert x.dtype == np.float32 and y.dtype == np.int64
        np.testing.assert_allclose(x, want, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(y, labels)


def test_dataset_indexing(images, labels):
    ds = datasets.Dataset(images, labels)
    whole = images.astype(np.float32)
    assert len(ds) == 23
    x, y = ds[-1]
    np.testing.assert_array_equal(x, whole[-1])
    assert y == labels[-1]
    for index in (slice(3, 20, 4), slice(None, None, -1), [5, -1, 5], np.array([2], np.uint8), []):
        wanted = index if isinstance(index, slice) else np.asarray(index, dtype=int)
        np.testing.assert_array_equal(ds[index][0], whole[wanted])
        np.testing.assert_array_equal(ds[index][1], labels[wanted])
    mask = labels == 3
    np.testing.assert_array_equal(ds[mask][0], whole[mask])


def test_dataset_batch_into_a_given_array(images, labels):
    ds = datasets.Dataset(images, labels)
    out = np.empty((3, 2, 5, 3), np.float32)
    x, y = ds.batch([4, 0, 22], out=out)
    assert x is out
    np.testing.assert_array_equal(out, images[[4, 0, 22]])
    for bad in (out[:2], out.astype(float), np.asfortranarray(out), [1]):
        with pytest.raises(ValueError, match="out must be"):
            ds.batch([4, 0, 22], out=bad)


@pytest.mark.parametrize("index", [23, -24, [0, 23], [-24], 2**62])
def test_dataset_refuses_indices_out_of_range(images, labels, index):
    with pytest.raises(IndexError, match="out of range for 23"):
        datasets.Dataset(images, labels)[index]


def test_dataset_refuses_other_arrays(images, labels):
    with pytest.raises(TypeError, match=r'int64.*astype\("float32"\)'):
        datasets.Dataset(images.astype(np.int64), labels)
    with pytest.raises(ValueError, match=r"23 images.*22 labels"):
        datasets.Dataset(images, labels[:22])
    with pytest.raises(ValueError, match="N x C x H x W"):
        datasets.Dataset(np.zeros(3, np.uint8), np.zeros(3, int))
    with pytest.raises(TypeError, match="labels must be integers"):
        datasets.Dataset(images, labels.astype(object))
    ds = datasets.Dataset(images, labels)
    with pytest.raises(TypeError, match="must be integers, not float64"):
        ds.batch([1.0])
    with pytest.raises(IndexError, match="mask"):
        ds[np.ones(22, bool)]


# ---- DataLoader ---------------------------------------------------------------------------------
def test_loader_covers_everything_once_in_a_repeatable_order(images, labels):
    data = (images, np.arange(23))
    for drop_last in (False, True):
        loader = DataLoader(data, 5, shuffle=True, seed=3, drop_last=drop_last)
        again = DataLoader(data, 5, shuffle=True, seed=3, drop_last=drop_last)
        first, second = ([y for _, y in loader] for _ in range(2))
        assert len(first) == len(loader) == (4 if drop_last else 5)
        seen = np.concatenate(first)
        assert len(set(seen)) == len(seen) == (20 if drop_last else 23)
        assert not np.array_equal(seen, np.concatenate(second))
        np.testing.assert_array_equal(seen, np.concatenate([y for _, y in again]))
        again.set_epoch(1)
        np.testing.assert_array_equal(np.concatenate(second), np.concatenate([y for _, y in again]))
    x, y = next(iter(DataLoader(data, 4)))
    np.testing.assert_array_equal(x, images[:4])
    np.testing.assert_array_equal(y, np.arange(4))


def test_loader_transform_is_repeatable(images, labels):
    def noise(x, rng):
        return x + rng.random(x.shape, np.float32)

    passes = [
        np.concatenate([x for x, _ in DataLoader((images, labels), 6, seed=1, transform=noise)]) for _ in range(2)
    ]
    np.testing.assert_array_equal(*passes)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be >= 1, not 0"),
        ({"batch_size": 1.5}, TypeError, "batch_size must be an integer, not 1.5"),
        ({"batch_size": True}, TypeError, "batch_size must be an integer"),
        ({"seed": -1}, ValueError, "seed must be >= 0"),
        ({"transform": 3}, TypeError, "transform must be callable"),
    ],
)
def test_loader_checks_its_arguments(images, labels, arguments, error, text):
    with pytest.raises(error, match=text):
        DataLoader((images, labels), **{"batch_size": 2, **arguments})


def test_loader_refuses_what_is_no_data(images):
    with pytest.raises(TypeError, match="expected a Dataset or a pair"):
        DataLoader(images, 2)


def test_random_shift_moves_whole_images():
    x = np.zeros((200, 1, 6, 7), np.float32)
    x[:, :, 3, 3] = 1
    y = datasets.RandomShift(2, fill=-1.0)(x, np.random.default_rng(0))
    _, _, rows, columns = np.nonzero(y == 1)
    assert y.shape == x.shape and len(rows) == 200
    assert set(rows) == set(columns) == {1, 2, 3, 4, 5}
    assert set(np.unique(y)) == {-1, 0, 1}
    np.testing.assert_array_equal(datasets.RandomShift(0)(x, np.random.default_rng(0)), x)


# ---- digits -------------------------------------------------------------------------------------
@pytest.mark.quick
def test_digits_split_and_normalisation():
    (x_train, y_train), (x_test, y_test) = datasets.digits()
    assert x_train.shape == (1433, 1, 28, 28) and x_test.shape == (364, 1, 28, 28)
    shares = np.bincount(y_test) / np.bincount(np.concatenate([y_train, y_test]))
    assert shares.min() > 0.19 and shares.max() < 0.21
    assert abs(x_train.mean()) < 1e-3 and abs(x_train.std() - 1) < 1e-3
    both = {image.tobytes() for image in x_train} & {image.tobytes() for image in x_test}
    assert not both
    again = datasets.digits()[1]
    np.testing.assert_array_equal(again[:][0], x_test)


def test_digits_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn.datasets")
    theirs = sklearn.load_digits()
    train, test = datasets.digits()
    assert sorted(np.concatenate([train.labels, test.labels])) == sorted(theirs.target)
    large = np.rint(resize(theirs.images, 28, 28) * 255 / 16).astype(np.uint8)
    ours = np.concatenate([train.images, test.images])[:, 0]
    assert {image.tobytes() for image in large} == {image.tobytes() for image in ours}


def test_resize_keeps_lines_straight():
    ramp = np.arange(8.0)[None, :] * np.ones((4, 1)) + 100
    wide = resize(ramp, 4, 16)
    np.testing.assert_allclose(wide[:, 1:-1], 100 + np.arange(1, 15)[None] / 2 - 0.25 + np.zeros((4, 1)))
    np.testing.assert_array_equal(resize(ramp, 4, 8), ramp)
    np.testing.assert_array_equal(resize(ramp[:1, :1], 3, 2), np.full((3, 2), 100.0))


# ---- IDX ----------------------------------------------------------------------------------------
def idx(array: np.ndarray, code: int = 8) -> bytes:
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("code", "dtype"), [(8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")])
def test_idx_round_trip(tmp_path, code, dtype, packed):
    array = np.arange(30).reshape(5, 3, 2).astype(dtype)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx(array, code)) if packed else idx(array, code))
    got = datasets.read_idx(path, ndim=3)
    np.testing.assert_array_equal(got, array)
    assert got.dtype.isnative and got.dtype == array.dtype.newbyteorder("=")


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
BAD_FILES = {
    "empty": (b"", "ends inside its header"),
    "html": (b"<html>503</html>", "not an IDX file"),
    "type": (b"\0\0\x07" + GOOD[3:], "not an IDX file"),
    "no dimensions": (b"\0\0\x08\0", "not an IDX file"),
    "header": (GOOD[:9], "ends inside its header"),
    "short": (GOOD[:-1], "truncated"),
    "long": (GOOD + b"x", "left over"),
    "dimensions": (idx(np.zeros((2, 3), np.uint8)), "has 2 dimensions, expected 3"),
    "huge": (b"\0\0\x0e\x03" + b"\xff" * 12, "promises"),
    "gzip short": (gzip.compress(GOOD)[:-9], "truncated"),
    "gzip damaged": (gzip.compress(GOOD)[:12] + b"\xff" * 20, "damaged"),
    "gzip checksum": (gzip.compress(GOOD)[:-8] + b"\0" * 8, "damaged"),
    "gzip of short": (gzip.compress(GOOD[:-1]), "truncated"),
    "gzip huge": (gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12), "promises"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_idx_errors(tmp_path, kind):
    data, text = BAD_FILES[kind]
    path = tmp_path / "bad.idx"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=text) as error:
        datasets.read_idx(path, ndim=3)
    assert "bad.idx" in str(error.value)


# ---- MNIST --------------------------------------------------------------------------------------
def small_mnist() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (20, 28, 28), np.uint8),
        "train-labels-idx1-ubyte": (np.arange(20) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (10, 28, 28), np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(10, dtype=np.uint8),
    }


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCNN_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("layout", ["{}", "{}.gz", "MNIST/raw/{}", "mnist/{}.gz"])
@pytest.mark.parametrize("in_root", [True, False])
def test_mnist_finds_its_files(tmp_path, no_cache, layout, in_root):
    folder = tmp_path / "data" if in_root else no_cache
    for name, array in small_mnist().items():
        path = folder / layout.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(idx(array)) if path.suffix == ".gz" else idx(array))
    train, test = datasets.mnist(folder if in_root else None, download=False)
    assert train.images.dtype == np.uint8 and len(train) == 20 and len(test) == 10
    x, y = test[3]
    pixels = small_mnist()["t10k-images-idx3-ubyte"][3]
    np.testing.assert_allclose(x[0], (pixels / 255 - 0.1307) / 0.3081, rtol=1e-5, atol=1e-6)
    assert y == 3


def test_mnist_errors(tmp_path, no_cache):
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        datasets.mnist(tmp_path, download=False)
    files = small_mnist()
    files["t10k-labels-idx1-ubyte"] = np.arange(9, dtype=np.uint8)
    for name, array in files.items():
        (tmp_path / name).write_bytes(idx(array))
    with pytest.raises(FileFormatError, match="expected 10 labels"):
        datasets.mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((9, 28, 27), np.uint8)))
    with pytest.raises(FileFormatError, match=r"expected uint8 \(N, 28, 28\)"):
        datasets.mnist(tmp_path)


# ---- downloads ----------------------------------------------------------------------------------
CONTENT = bytes(range(256)) * 40
WHOLE = gzip.compress(CONTENT)
ANSWERS = {
    "good": (200, WHOLE, len(WHOLE)),
    "missing": (404, b"", 0),
    "forbidden": (403, b"<html>no</html>", 15),
    "html503": (503, b"<html>busy</html>", 17),
    "html200": (200, b"<html>busy</html>", 17),
    "truncated": (200, WHOLE[: len(WHOLE) // 2], len(WHOLE)),
    "truncated_quietly": (200, WHOLE[: len(WHOLE) // 2], len(WHOLE) // 2),
    "wrong_hash": (200, gzip.compress(CONTENT[::-1]), None),
    "too_long": (200, gzip.compress(CONTENT * 1000), None),
    "too_short": (200, gzip.compress(CONTENT[:-1]), None),
    "damaged": (200, WHOLE[:-8] + b"\0" * 8, None),
}


@pytest.fixture(scope="module")
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            kind, _, name = self.path[1:].partition("/")
            if kind == "files":
                body = self.server.files.get(name)
                status, size = (200, len(body)) if body is not None else (404, 0)
            elif kind == "silent":
                time.sleep(1.5)
                return
            elif kind == "drip":
                self.send_response(200)
                self.end_headers()
                for i in range(100):
                    self.wfile.write(WHOLE[i : i + 1])
                    time.sleep(0.05)
                return
            else:
                status, body, size = ANSWERS[kind]
            self.send_response(status)
            if size is not None:
                self.send_header("Content-Length", str(size))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *arguments):
            pass

        def handle(self):
            try:
                super().handle()
            except ConnectionError:
                pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.files = {}
    httpd.url = f"http://127.0.0.1:{httpd.server_port}/"
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()


def fetch(server, folder, *kinds, timeout=0.4):
    return download.fetch_gzip(
        "data.gz",
        [server.url + kind for kind in kinds],
        folder,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        timeout=timeout,
    )


def test_download_is_whole_and_leaves_no_part(server, tmp_path):
    path = fetch(server, tmp_path / "new" / "folder", "good")
    assert path.read_bytes() == WHOLE
    assert [p.name for p in path.parent.iterdir()] == ["data.gz"]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing", "HTTP 404"),
        ("forbidden", "HTTP 403"),
        ("html503", "HTTP 503"),
        ("html200", "not a gzip file.*<html>"),
        ("truncated", "truncated"),
        ("truncated_quietly", "truncated"),
        ("wrong_hash", "wrong sha256"),
        ("too_long", "longer than"),
        ("too_short", "expected"),
        ("damaged", "damaged"),
        ("silent", "connection"),
        ("drip", "too slow"),
    ],
)
def test_download_rejects_and_takes_the_next_mirror(server, tmp_path, kind, text):
    with pytest.raises(download.DownloadError, match=text) as error:
        fetch(server, tmp_path, kind)
    assert str(tmp_path) in str(error.value) and "put data.gz" in str(error.value)
    assert not list(tmp_path.iterdir())
    assert fetch(server, tmp_path, kind, "good").read_bytes() == WHOLE
    assert [p.name for p in tmp_path.iterdir()] == ["data.gz"]


def test_download_without_a_network(tmp_path):
    with pytest.raises(OSError, match="no connection"):
        download.fetch_gzip("data.gz", ["http://127.0.0.1:9/"], tmp_path, sha256="", size=1, timeout=1)
    assert not list(tmp_path.iterdir())


def test_mnist_downloads_what_is_missing(server, tmp_path, no_cache, monkeypatch):
    raw = {name: idx(array) for name, array in small_mnist().items()}
    facts = {name: (hashlib.sha256(data).hexdigest(), len(data)) for name, data in raw.items()}
    monkeypatch.setattr(mnist_module, "FILES", facts)
    monkeypatch.setattr(mnist_module, "MIRRORS", (server.url + "html503", server.url + "files"))
    server.files = {f"{name}.gz": gzip.compress(data) for name, data in raw.items()}
    assert [len(part) for part in datasets.mnist()] == [20, 10]
    assert sorted(p.name for p in no_cache.iterdir()) == sorted(server.files)
    server.files = {}
    assert [len(part) for part in datasets.mnist(tmp_path / "other")] == [20, 10]  # from the cache
    (no_cache / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(OSError, match=r"(?s)t10k-labels.*503.*404.*put.*four files"):
        datasets.mnist()


@pytest.mark.parametrize("labels", [(), (3000,)], ids=["classes", "maps"])
def test_loader_reads_ahead_by_the_size_of_samples(labels, monkeypatch):
    x = np.zeros((5000, 16), np.float32)
    y = np.zeros((5000, *labels), np.float32 if labels else np.int64)
    loader, read = DataLoader((x, y), 16), []
    gather = loader.dataset._gather
    monkeypatch.setattr(loader.dataset, "_gather", lambda index: read.append(len(index)) or gather(index))
    next(iter(loader))
    per_sample = (x.nbytes + y.nbytes) // 5000
    assert 16 <= read[0] <= max(16, (2 << 20) // per_sample)
    assert sum(len(b) for b, _ in loader) == 5000
