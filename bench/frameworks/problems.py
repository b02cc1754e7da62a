"""The problems that are smaller than a network, and the sizes that networks are scaled over; NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import common

PASSES = ("forward", "data gradient", "weight gradient")


@dataclass(frozen=True)
class Conv:
    """One line of problems/conv.txt."""

    name: str
    channels: int
    size: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    groups: int = 1
    batch: int = 16

    @property
    def output_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.batch, self.channels, self.size, self.size

    @property
    def w_shape(self) -> tuple[int, ...]:
        return self.outputs, self.channels // self.groups, self.kernel, self.kernel

    @property
    def y_shape(self) -> tuple[int, ...]:
        return self.batch, self.outputs, self.output_size, self.output_size

    @property
    def flops(self) -> float:
        """Of any of the three passes, by the direct method."""
        return 2.0 * np.prod(self.y_shape) * np.prod(self.w_shape[1:])

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, weight and dy: uniform in [-1, 1), the weight scaled by its fan-in."""
        rng = np.random.Generator(np.random.Philox(1))
        x, w, dy = (common.uniform(rng, s) for s in (self.x_shape, self.w_shape, self.y_shape))
        return x, w / np.float32(np.sqrt(np.prod(self.w_shape[1:]))), dy

    def error(self, kind: str, arrays: tuple[np.ndarray, ...], got: np.ndarray) -> float:
        """The normwise error of what a pass computed from `arrays`, against float64, over 64 of its elements."""
        where = np.random.Generator(np.random.Philox(10)).integers(0, got.size, 64)
        x, w, dy = arrays
        x = np.pad(x, ((0, 0), (0, 0), (self.padding,) * 2, (self.padding,) * 2))
        element = {"forward": self._forward, "data gradient": self._data, "weight gradient": self._weight}[kind]
        exact = np.array([element(x, w, dy, *place) for place in zip(*np.unravel_index(where, got.shape))])
        return float(np.linalg.norm(got.reshape(-1)[where] - exact) / np.linalg.norm(exact))

    def _first_input(self, o: int) -> int:
        """The first input channel of the group of output channel o."""
        return o * self.groups // self.outputs * (self.channels // self.groups)

    def _forward(self, x, w, dy, n, o, i, j):
        k, s = self.kernel, self.stride
        c = self._first_input(o)
        return _dot(x[n, c : c + w.shape[1], i * s : i * s + k, j * s : j * s + k], w[o])

    def _weight(self, x, w, dy, o, c, i, j):
        s, reach = self.stride, (self.output_size - 1) * self.stride + 1
        return _dot(x[:, self._first_input(o) + c, i : i + reach : s, j : j + reach : s], dy[:, o])

    def _data(self, x, w, dy, n, c, i, j):
        """Over the windows that reach the padded image's (i, j), each by another tap (a, b)."""
        i, j, s, size, total = i + self.padding, j + self.padding, self.stride, self.output_size, 0.0
        group, c = divmod(c, w.shape[1])
        outputs = slice(group * self.outputs // self.groups, (group + 1) * self.outputs // self.groups)
        for a in range(i % s, self.kernel, s):
            for b in range(j % s, self.kernel, s):
                row, column = (i - a) // s, (j - b) // s
                if 0 <= row < size and 0 <= column < size:
                    total += _dot(dy[n, outputs, row, column], w[outputs, c, a, b])
        return total


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))


def convolutions(quick: bool = False) -> list[Conv]:
    batch = 2 if quick else 16
    return [Conv(name, *map(int, numbers), batch=batch) for name, *numbers in _lines("conv.txt", 7)]


def sgemm_sizes(quick: bool = False) -> list[tuple[str, int]]:
    return [(name, int(n)) for name, n in _lines("sgemm.txt", 1) if not quick or int(n) <= 512]


def matrices(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.Philox(6))
    return common.uniform(rng, (n, n)), common.uniform(rng, (n, n))


# Kernel, stride and padding of the poolings of VGG and GoogLeNet; batch normalisation has none.
STREAMED = {"max pool 2x2/2": (2, 2, 0), "max pool 3x3/2": (3, 2, 1), "batch norm": None}


@dataclass(frozen=True)
class Streaming:
    """A pass of an operation that does little but move memory, on one line of problems/streaming.txt."""

    layer: str  # one of STREAMED
    what: str  # forward or backward, of training; or inference
    channels: int
    size: int
    batch: int

    @property
    def name(self) -> str:
        return f"{self.layer} {self.what} {self.channels} @{self.size} b{self.batch}"

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.batch, self.channels, self.size, self.size

    @property
    def y_shape(self) -> tuple[int, ...]:
        if (window := STREAMED[self.layer]) is None:
            return self.x_shape
        kernel, stride, padding = window
        side = (self.size + 2 * padding - kernel) // stride + 1
        return self.batch, self.channels, side, side

    @property
    def held(self) -> int:
        """Bytes of the large arrays that it works on."""
        x, y = (4 * int(np.prod(shape)) for shape in (self.x_shape, self.y_shape))
        return 3 * x if (self.layer, self.what) == ("batch norm", "backward") else x + y

    @property
    def moved(self) -> int:
        """Bytes that it must read and write. Batch normalisation reads its input, and backward dy too, twice; the
        positions of maxima are not counted."""
        if self.layer == "batch norm":
            return (3 if self.what == "forward" else 5) * 4 * int(np.prod(self.x_shape))
        return self.held

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x, weight and bias (one per channel), and dy."""
        rng = np.random.Generator(np.random.Philox(9))
        shapes = self.x_shape, (self.channels,), (self.channels,), self.y_shape
        x, weight, bias, dy = (common.uniform(rng, shape) for shape in shapes)
        return x, weight + np.float32(2), bias, dy


def streaming(quick: bool = False) -> list[Streaming]:
    sizes = [tuple(map(int, numbers)) for _, *numbers in _lines("streaming.txt", 3)]
    passes = [(layer, what) for layer in STREAMED for what in ("inference", "forward", "backward")]
    passes.remove(("batch norm", "inference"))  # it is folded into the convolution, or fused with what follows
    return [Streaming(*one, *size) for size in sizes[: 2 if quick else None] for one in passes]


@dataclass(frozen=True)
class Scaled:
    """A network at one batch size and one side of its images."""

    model: str
    what: str  # train or infer
    axis: str  # what varies along its row of the table: batch or side
    batch: int
    side: int

    @property
    def row(self) -> str:
        return f"{self.model} {self.what} " + (f"@{self.side}" if self.axis == "batch" else f"b{self.batch}")

    @property
    def column(self) -> int:
        return self.batch if self.axis == "batch" else self.side

    @property
    def name(self) -> str:
        return f"{self.row}, {self.axis} {self.column}"

    @property
    def place(self) -> dict:
        """Of its figure in the table, and of how many images (or 1000 pixels) that is."""
        count = self.batch if self.axis == "batch" else self.batch * self.side**2 / 1000
        return {"row": self.row, "axis": self.axis, "column": self.column, "count": count}

    @property
    def bytes(self) -> float:
        """More than any framework takes for it."""
        image = 0.5e6 if self.model == "lenet5" else 40e6 * (self.side / 224) ** 2
        return 1e9 + self.batch * image

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return common.images(self.batch) if self.model == "lenet5" else common.large_images(self.batch, self.side)


SCALED_BATCH = 16  # where the side varies


def scaled(quick: bool = False) -> list[Scaled]:
    batches = (1, 2, 4) if quick else tuple(2**i for i in range(9))
    sides = (32, 64) if quick else (32, 64, 96, 128, 192, 224, 320, 448)
    out = []
    for what in ("infer", "train"):
        out += [Scaled("lenet5", what, "batch", batch, 28) for batch in batches]
        out += [Scaled("resnet18", what, "batch", batch, 64 if quick else 224) for batch in batches]
        out += [Scaled("resnet18", what, "side", 2 if quick else SCALED_BATCH, side) for side in sides]
    return out


def _lines(file: str, numbers: int) -> list[list[str]]:
    """The lines of a problem list: a name, which may hold blanks, and so many numbers."""
    lines = (common.BENCH / "problems" / file).read_text().splitlines()
    return [line.rsplit(maxsplit=numbers) for line in lines if line and not line.startswith("#")]
