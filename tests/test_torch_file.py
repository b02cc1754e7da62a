"""PyTorch's files without PyTorch: what torch.save writes is read, what a pickle could do is refused."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

import fastcnn as fc
from fastcnn import models
from fastcnn.io import FileFormatError, torch_file

DATA = np.arange(12, dtype=np.float32)


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def storage(key="0", kind="FloatStorage", count=12):
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(key="0", kind="FloatStorage", count=12, offset=0, size=(3, 4), stride=(4, 1)):
    """The opcodes of one tensor, written by hand."""
    rest = number(offset) + numbers(size) + numbers(stride) + b"\x89" + name("collections", "OrderedDict") + b")R"
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage(key, kind, count) + rest + b"tR"


def state(*items):
    return b"\x80\x02}(" + b"".join(text(k) + v for k, v in items) + b"u."


def write_zip(path, program, members=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        for key, data in (members if members is not None else {"data/0": DATA.tobytes()}).items():
            archive.writestr(f"archive/{key}", data)
    return path


def write_legacy(path, program, storages=(("0", DATA),)):
    head = [pickle.dumps(v, 2) for v in (torch_file.MAGIC, 1001, {"little_endian": True})]
    storages = storages if b"storage" in program else ()
    keys = pickle.dumps([key for key, _ in storages], 2)
    raw = b"".join(struct.pack("<q", array.size) + array.tobytes() for _, array in storages)
    path.write_bytes(b"".join(head) + program + keys + raw)
    return path


@pytest.fixture(params=[write_zip, write_legacy], ids=["zip", "legacy"])
def write(request):
    return request.param


def test_tensors_views_and_numbers(write, tmp_path):
    program = state(
        ("plain", tensor()),
        ("turned", tensor(size=(4, 3), stride=(1, 4))),
        ("part", tensor(offset=5, size=(2,), stride=(3,))),
        ("scalar", tensor(offset=7, size=(), stride=())),
        ("epoch", number(3)),
    )
    got = fc.load_state(write(tmp_path / "a.pth", program))
    assert list(got) == ["plain", "turned", "part", "scalar"]
    np.testing.assert_array_equal(got["plain"], DATA.reshape(3, 4))
    np.testing.assert_array_equal(got["turned"], DATA.reshape(3, 4).T)
    np.testing.assert_array_equal(got["part"], [5, 8])
    assert got["scalar"].shape == () and got["scalar"] == 7


def test_types(tmp_path):
    half = np.array([1.5, -2], np.float16)
    bf16 = np.array([1.5, -2], np.float32).view(np.uint32) >> 16
    members = {
        "data/0": half.tobytes(),
        "data/1": bf16.astype(np.uint16).tobytes(),
        "data/2": np.int64([7, -1]).tobytes(),
    }
    shape = dict(count=2, size=(2,), stride=(1,))
    program = state(
        ("half", tensor("0", "HalfStorage", **shape)),
        ("bfloat", tensor("1", "BFloat16Storage", **shape)),
        ("long", tensor("2", "LongStorage", **shape)),
    )
    got = fc.load_state(write_zip(tmp_path / "a.pth", program, members))
    assert [a.dtype for a in got.values()] == [np.float32, np.float32, np.int64]
    assert [a.tolist() for a in got.values()] == [[1.5, -2], [1.5, -2], [7, -1]]


class Evil:
    def __reduce__(self):
        return os.system, ("touch owned",)


@pytest.mark.parametrize(
    "program, message",
    [
        (pickle.dumps({"w": Evil()}, 2), r"asks for (posix|nt)\.system"),
        (state(("w", name("builtins", "eval") + b"(" + text("1") + b"tR")), r"asks for builtins\.eval"),
        (b"\x80\x02(" + text("x") + b"i__main__\nEvil\n.", "opcode INST"),
        (state(("w", tensor() + text("a") + b"\x85\x81")), "opcode NEWOBJ"),
        (state(("w", tensor(size=(1000, 4)))), "does not lie inside its storage"),
        (state(("w", tensor(offset=9))), "does not lie inside its storage"),
        (state(("w", tensor(size=(1 << 20, 1 << 20), stride=(0, 0)))), "repeats the 12 elements of its storage"),
        (state(("w", tensor(stride=(-4, 1)))), "strides or offset are no numbers"),
        (state(("w", tensor(size=(1,) * 33, stride=(1,) * 33))), "33 sizes and 33 strides"),
        (state(("w", tensor(size=(2, 2), stride=(1,)))), "2 sizes and 1 strides"),
        (state(("w", name("torch", "FloatTensor") + b")R" + b"(" + storage("0", "LongStorage", 12) + number(0)
                + numbers([12]) + numbers([1]) + b"tb")), "type f4 in a storage of type i8"),
        (state(("w", name("torch", "FloatTensor") + number(1) + b"\x85R")), r"call of torch\.FloatTensor with 1 arg"),
        (state(("w", name("collections", "OrderedDict") + b"]" + number(1) + b"a\x85R")), "something else than pairs"),
        (b"\x80\x02}" + number(1) + b"\x85" + number(1) + b"s.", "a tuple as the key of a dictionary"),
        (b"\x80\x02(" + text("module") + b"NNNNtQ.", "id of a 'module'; the file seems to hold a whole model"),
        (b"\x80\x02((((((.", "truncated|not enough values|ends inside"),
        (b"\x80\x02" + b"\x8d" + struct.pack("<Q", 1 << 62) + b"abc.", "damaged|truncated"),
        (b"\x80\x02" + b"\x8b" + struct.pack("<i", 1 << 30) + b"abc.", "damaged|truncated"),
        (state(("w", tensor(kind="ComplexFloatStorage"))), r"asks for torch\.ComplexFloatStorage"),
        (state(("w", tensor(key="../../etc/passwd"))), "storage '../../etc/passwd'"),
        (state(("w", tensor()), ("v", tensor(count=6, size=(2, 3), stride=(3, 1)))), "described in two ways"),
        (state(("w", number(3))), "no tensors among w|does not fit the tensors"),
        (b"\x80\x02]" + tensor() + b"a.", "a list, not a state dict"),
    ],
)  # fmt: skip
def test_hostile_files_are_refused_by_name(program, message, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileFormatError, match=message):
        fc.load_state(write(tmp_path / "a.pth", program))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "members, compression, message",
    [
        ({}, zipfile.ZIP_STORED, "data/0 is missing"),
        ({"data/0": DATA.tobytes()[:-1]}, zipfile.ZIP_STORED, "has 47 bytes, its storage needs 48"),
        ({"data/0": bytes(10**6)}, zipfile.ZIP_STORED, "has 1000000 bytes, its storage needs 48"),
        (None, zipfile.ZIP_DEFLATED, "is compressed"),
        ({"data/0": DATA.tobytes(), "byteorder": b"middle"}, zipfile.ZIP_STORED, "byte order 'middle'"),
    ],
)
def test_zip_members(members, compression, message, tmp_path):
    with pytest.raises(FileFormatError, match=message):
        fc.load_state(write_zip(tmp_path / "a.pth", state(("w", tensor())), members, compression))


def test_big_endian(tmp_path):
    members = {"data/0": DATA.astype(">f4").tobytes(), "byteorder": b"big"}
    got = fc.load_state(write_zip(tmp_path / "a.pth", state(("w", tensor())), members))
    np.testing.assert_array_equal(got["w"], DATA.reshape(3, 4))


PLACE = number(0) + numbers([3, 4]) + numbers([4, 1])
OLD = {
    "_rebuild_tensor": name("torch._utils", "_rebuild_tensor") + b"(" + storage() + PLACE + b"tR",
    "FloatTensor": name("torch", "FloatTensor") + b")Rq\x07(" + storage() + PLACE + b"tbq\x08",
    "Parameter": name("torch.nn.parameter", "Parameter") + tensor() + b"\x85R" + b"\x88\x89"
    + name("collections", "OrderedDict") + b")R\x87b",
    "_rebuild_parameter": name("torch._utils", "_rebuild_parameter") + b"(" + tensor() + b"\x88"
    + name("collections", "OrderedDict") + b")RtR",
}  # fmt: skip


@pytest.mark.parametrize("how", OLD)
def test_what_older_versions_of_torch_wrote(how, write, tmp_path):
    """torchvision's VGG-16 and VGG-19 are such files. Python 2 wrote an OrderedDict of a list of pairs."""
    pairs = b"](](U\x01w" + OLD[how] + b"ee"
    for program in (b"\x80\x02" + name("collections", "OrderedDict") + pairs + b"\x85R.", state(("w", OLD[how]))):
        got = fc.load_state(write(tmp_path / "a.pth", program))
        np.testing.assert_array_equal(got["w"], DATA.reshape(3, 4))
    try:
        import torch
    except ImportError:
        return
    if write is write_legacy:
        path = write(tmp_path / "a.pth", program.replace(number(12) + b"tQ", number(12) + b"NtQ"))
    else:
        path = write(tmp_path / "a.pth", program, {"data/0": DATA.tobytes(), "version": b"3"})
    theirs = torch.load(path, weights_only=how != "FloatTensor")
    np.testing.assert_array_equal(theirs["w"].detach().numpy(), got["w"])


def test_views_share_their_storage(write, tmp_path):
    program = state(("a", tensor(size=(12,), stride=(1,))), ("b", tensor(offset=4, size=(2, 2), stride=(1, 2))))
    got = fc.load_state(write(tmp_path / "a.pth", program))
    got["a"][:] = 1
    assert (got["b"] == 1).all() and got["b"].strides == (4, 8)


def test_small_files_cannot_ask_for_much(write, tmp_path):
    """Lists of lists of lists, each mentioned twice; a thousand tensors of one storage; marks within marks."""
    laughs = b"]" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    deep = b")" + b"\x85" * 100_000
    for program, message in (
        (laughs + b"\x85" * 8 + b".", "nested more than 64"),
        (tensor() + laughs[1:] + b".", "a tuple, not a state dict"),
        (b"]q\x00h\x00a.", "nested more than 64"),
        (deep + b".", "nested more than 64"),
        (b"}" + laughs + number(1) + b"s.", "a tuple as the key"),
        (b"}" + deep + number(1) + b"s.", "a tuple as the key"),
        (laughs + b"Q.", "persistent id"),
        (deep + deep + b"\x93.", "asks for a tuple"),
        (deep + b")R.", "a call of a tuple"),
    ):
        with pytest.raises(FileFormatError, match=message):
            fc.load_state(write(tmp_path / "a.pth", b"\x80\x02" + program))
    marks = state(("w", tensor())).replace(b"u.", b"".join(text(str(i)) + b"(t" for i in range(20_000)) + b"u.")
    assert list(fc.load_state(write(tmp_path / "a.pth", marks))) == ["w"]
    many = [("0", tensor() + b"q\x01")] + [(str(i), b"h\x01") for i in range(1, 1000)]
    got = fc.load_state(write(tmp_path / "a.pth", state(*many)))
    assert len(got) == 1000 and all(np.shares_memory(a, got["0"]) for a in got.values())


def test_zip_directory_that_lies(tmp_path):
    """Sizes in the directory beyond the data behind them, and members on top of each other."""
    path = write_zip(tmp_path / "a.pth", state(("w", tensor(count=1 << 20, size=(1 << 20,), stride=(1,)))))
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")  # the directory's entry of data/0
    for compressed, size in ((48, 1 << 22), (1 << 22, 1 << 22)):
        raw[at + 20 : at + 28] = struct.pack("<II", compressed, size)
        path.write_bytes(raw)
        with pytest.raises(FileFormatError, match="claims 4194304 bytes, which the file does not have"):
            fc.load_state(path)
    long = {f"data/{i}": bytes(4000) for i in range(20)}
    program = state(*((str(i), tensor(str(i), count=1000, size=(1000,), stride=(1,))) for i in range(20)))
    raw = bytearray(write_zip(path, program, long).read_bytes())
    assert len(fc.load_state(path)) == 20
    first = raw.index(b"archive/data/0") - 30
    for i in range(20):  # every entry of the directory points at data/0
        name_at = raw.rindex(f"archive/data/{i}".encode())
        raw[name_at - 4 : name_at] = struct.pack("<I", first)
    path.write_bytes(raw)
    with pytest.raises(FileFormatError, match="damaged"):
        fc.load_state(path)


def test_legacy_storage_larger_than_the_file(tmp_path):
    count = (1 << 31) - 1
    program = state(("w", tensor(count=count, kind="DoubleStorage", size=(3,), stride=(1,))))
    path = write_legacy(tmp_path / "a.pth", program)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<q", 12), struct.pack("<q", count)))
    with pytest.raises(FileFormatError, match=r"truncated: 17179869176 bytes expected, 48 left"):
        fc.load_state(path)


def test_cut_anywhere(write, tmp_path):
    whole = write(tmp_path / "a.pth", state(("w", tensor()))).read_bytes()
    for length in range(len(whole)):
        (tmp_path / "b.pth").write_bytes(whole[:length])
        with pytest.raises(FileFormatError):
            fc.load_state(tmp_path / "b.pth")


def test_every_byte_changed(write, tmp_path):
    """Any change gives a named error or another array, never another exception."""
    whole = write(tmp_path / "a.pth", state(("w", tensor()))).read_bytes()
    for at in range(len(whole)):
        for new in (0, whole[at] ^ 1, 0xFF):
            (tmp_path / "b.pth").write_bytes(whole[:at] + bytes([new]) + whole[at + 1 :])
            try:
                fc.load_state(tmp_path / "b.pth")
            except FileFormatError:
                pass


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves(zipped, tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 5), torch.nn.BatchNorm2d(6), torch.nn.Linear(3, 2).half())
    tied = torch.arange(10.0)
    kinds = {str(k): tied.to(k) for k in (torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool)}
    for value, want in (
        (net.state_dict(), net.state_dict()),
        ({"state_dict": net.state_dict(), "epoch": 3, "lr": [0.1, None, True]}, net.state_dict()),
        (kinds, kinds),
        (
            {"a": tied[2:6], "b": tied.reshape(2, 5).t(), "c": torch.nn.Parameter(tied)},
            {"a": tied[2:6], "b": tied.reshape(2, 5).t(), "c": tied},
        ),
    ):
        torch.save(value, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        got = fc.load_state(tmp_path / "a.pth")
        assert list(got) == list(want)
        for key, array in want.items():
            np.testing.assert_array_equal(
                got[key], (array.float() if array.dtype in (torch.half, torch.bfloat16) else array).numpy()
            )
    model = models.lenet5()
    torch.save(
        {k: torch.tensor(v) for k, v in model.state_dict().items()},
        tmp_path / "l.pth",
        _use_new_zipfile_serialization=zipped,
    )
    models.lenet5().load_state_dict(fc.load_state(tmp_path / "l.pth"))
    torch.save(net, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileFormatError, match=r"refused: the file asks for torch\.nn\.modules"):
        fc.load_state(tmp_path / "whole.pth")


def test_not_a_torch_file(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"<html>503</html>")
    with pytest.raises(FileFormatError, match=r"neither a whole safetensors file .* nor a PyTorch file"):
        fc.load_state(tmp_path / "a.pth")
    with io.BytesIO() as buffer, zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme", "x")
        archive.close()
        (tmp_path / "b.pth").write_bytes(buffer.getvalue())
    with pytest.raises(FileFormatError, match=r"0 members named data\.pkl"):
        fc.load_state(tmp_path / "b.pth")
