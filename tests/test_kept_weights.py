"""What programs make of weights and statistics once for many runs - packed, transformed, with a norm folded in - is made anew
when these change, however they do."""

import numpy as np
import pytest

import fastcnn as fc
from fastcnn import nn, optim

LAYERS = {  # what a layer of 16 channels and its norm keep, and how many images bring it about
    "pack_weights": (2, "direct", lambda: [nn.Conv2d(16, 16, 3, padding=1)]),
    "winograd_weights": (2, "winograd", lambda: [nn.Conv2d(16, 16, 3, padding=1)]),
    "winograd_n_weights": (32, "winograd", lambda: [nn.Conv2d(16, 16, 3, padding=1)]),
    "gemm_pack_b": (32, "auto", lambda: [nn.Flatten(), nn.Linear(16 * 30, 16)]),
    "batch_norm_scale": (2, "auto", lambda: [nn.BatchNorm2d(16)]),
    "batch_norm_scale of many images": (32, "auto", lambda: [nn.BatchNorm2d(16)]),
    "batch_norm_scale of an instance norm": (
        2,
        "auto",
        lambda: [nn.InstanceNorm2d(16, affine=True, track_running_stats=True)],
    ),
    "fold_norm": (2, "auto", lambda: [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)]),
    "fold_norm of many images": (32, "auto", lambda: [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)]),
    "fold_norm of a product": (2, "auto", lambda: [nn.Flatten(), nn.Linear(16 * 30, 16), nn.BatchNorm1d(16)]),
}
WITH_STATISTICS = [what for what in LAYERS if "norm" in what]


def drawn(what):
    """A model in evaluation, all of its arrays drawn at random, and an input."""
    images, algorithm, layers = LAYERS[what]
    fc.set_conv_algorithm(algorithm)
    model, rng = nn.Sequential(*layers()).eval(), np.random.default_rng(0)
    for p in [*model.parameters(), *model.buffers()]:
        if p.dtype == np.float32:
            p[...] = rng.uniform(0.5, 2, p.shape)
    return model, rng.standard_normal((images, 16, 6, 5)).astype(np.float32)


class Watched:
    """with Watched(...) as watched: each run has the bits of a model that never ran before, and not those of the run before it.

    These models are made at the end: a new module anywhere has all programs made anew.
    """

    def __init__(self, what, first=lambda model: None):
        self.what, (self.model, self.x) = what, drawn(what)
        first(self.model)
        self.last = self.model(self.x).copy()
        self.program, self.seen = self.model._last_program[-1], []
        kept = [s for s in self.program.steps if s.phase == "prepare"]
        assert what.split()[0] in {s.kernel for s in kept} and not any(p.exposed for p in self.program.params)

    def changed(self, how):
        got = self.model.eval()(self.x).copy()
        assert self.model._last_program[-1] is self.program, "it is the kept program that must see the change"
        assert not np.array_equal(got, self.last), f"{how} does not show"
        np.testing.assert_array_equal(self.model(self.x), got)
        self.last = got
        self.seen.append((how, self.model.state_dict(), got))

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        for how, state, got in self.seen if error is None else []:
            fresh, x = drawn(self.what)
            fresh.load_state_dict(state)
            np.testing.assert_array_equal(got, fresh(x), err_msg=how)


HANDED_OUT = {
    "data": lambda p: p.data,
    "__array_interface__": np.asarray,
    "__array__": lambda p: p.__array__(),
    "__dlpack__": fc.from_dlpack,
}


@pytest.mark.parametrize("what", LAYERS)
@pytest.mark.parametrize("way", HANDED_OUT)
def test_what_is_written_to_an_array_that_was_handed_out_shows(way, what):
    """Of each parameter and buffer, handed out after a run; and again, held over runs."""
    for name in [name for name, p in drawn(what)[0]._named_state() if p.dtype == np.float32]:
        with Watched(what) as watched:
            parameter = dict(watched.model._named_state())[name]
            held = HANDED_OUT[way](parameter)
            assert np.shares_memory(held, parameter.storage)
            for factor in (1.5, 3, 0.25):
                held *= np.float32(factor)
                watched.changed(f"{name} through {way}")


@pytest.mark.parametrize("what", LAYERS)
def test_what_is_written_to_a_parameter_shows(what):
    with Watched(what) as watched:
        for name, p in watched.model._named_state():
            if p.dtype == np.float32:
                p[...] = 2 * p.numpy()
                watched.changed(f"{name}[...]")
                p[(0,) * p.ndim] = 5
                watched.changed(f"{name}[0]")
                p.data = p.numpy() + 1
                watched.changed(f"{name}.data =")
        assert not any(p.exposed for p in watched.program.params)
        watched.model.load_state_dict({name: value * 2 for name, value in watched.model.state_dict().items()})
        watched.changed("load_state_dict")


@pytest.mark.parametrize(
    "what, momentum",  # without one, an instance norm's stay where they are
    [(what, m) for what in WITH_STATISTICS for m in (0.1, 0.7, None) if m or "instance" not in what],
)
def test_statistics_that_runs_move_show(what, momentum):
    """In training, of the model and of its norm alone, with gradients and without: nothing else changes."""
    with Watched(what, lambda model: setattr(model[-1], "momentum", momentum)) as watched:
        model, norm = watched.model, watched.model[-1]
        inside = np.random.default_rng(1).standard_normal((4, 16, 3, 3)).astype(np.float32)
        inside = inside[:, :, 0, 0].copy() if isinstance(norm, nn.BatchNorm1d) else inside
        for module, values in ((model, 3 * watched.x), (norm, inside)):
            module.train()(values)
            watched.changed(f"a run of {type(module).__name__}")
            with fc.no_grad():
                module.train()(2 * values)
            watched.changed(f"a run of {type(module).__name__} without gradients")


@pytest.mark.parametrize("what", WITH_STATISTICS)
def test_statistics_that_are_written_show(what):
    with Watched(what) as watched:
        norm = watched.model[-1]
        for name in ("running_mean", "running_var"):
            buffer = getattr(norm, name)
            buffer[...] = buffer.numpy() + 1
            watched.changed(f"{name}[...]")
            norm.load_state_dict({**norm.state_dict(), name: buffer.numpy() * 2})
            watched.changed(f"load_state_dict of {name}")
        norm.reset_running_stats()
        watched.changed("reset_running_stats")


@pytest.mark.parametrize(
    "what, rate", [*[(what, 0.125) for what in LAYERS], *[(what, 0.0) for what in WITH_STATISTICS]]
)
def test_what_a_training_step_moves_shows(what, rate):
    """The weights, or with a rate of 0 the statistics alone."""
    steps = []

    def compiled(model):
        steps.append(fc.compile_step(model, nn.MSELoss(), optim.SGD(model.parameters(), rate)))

    with Watched(what, compiled) as watched:
        for _ in range(3):
            weights = [p.numpy() for p in watched.model.parameters()]
            watched.model.train()
            steps[0](3 * watched.x, np.zeros_like(watched.last))
            watched.changed("a training step")
            same = [np.array_equal(a, p.numpy()) for a, p in zip(weights, watched.model.parameters())]
            assert all(same) == (rate == 0)


@pytest.mark.parametrize("what", LAYERS)
def test_what_an_optimizer_moves_in_a_loop_shows(what):
    """A step of the optimizer alone, by gradients that are given."""
    optimizers = []
    with Watched(what, lambda model: optimizers.append(optim.SGD(model.parameters(), 0.125))) as watched:
        for p in watched.model.parameters():
            p.grad = np.ones(p.shape, np.float32)
        for _ in range(2):
            optimizers[0].step()
            watched.changed("a step of the optimizer")


# ---- runs with gradients -------------------------------------------------------------------------------------------
def recorded(model, x):
    """What a run in training gives, and the array in whose place its input's gradient comes."""
    factor = nn.Parameter(np.ones(x.shape, np.float32))
    return model.train()(x * factor), factor


def gradients(model, y, factor):
    model.zero_grad()
    y.backward(np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape))
    return [np.array(p.grad) for p in (factor, *model.parameters())]


@pytest.mark.parametrize("what", LAYERS)
def test_runs_with_gradients_see_every_change(what):
    """The values and all gradients, of the input too, for which the weights are packed the other way round."""
    model, x = drawn(what)
    optimizer, seen, programs = optim.SGD(model.parameters(), 0.125), [], set()
    weight = next(model.parameters())

    def run():
        state = model.state_dict()
        y, factor = recorded(model, x)
        seen.append((state, [np.array(y), *gradients(model, y, factor)]))
        programs.add(model._programs._latest[1].program)

    run()
    optimizer.step()
    run()
    weight[...] = weight.numpy() * 2
    run()
    held = weight.data
    for factor in (1.5, 3):
        held *= np.float32(factor)
        run()
    (program,) = programs
    assert [s for s in program.steps if s.phase == "prepare"] or what in WITH_STATISTICS[:3]
    for state, got in seen:
        fresh, x = drawn(what)
        fresh.load_state_dict(state)
        y, factor = recorded(fresh, x)
        for a, b in zip(got, [y, *gradients(fresh, y, factor)], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("what", LAYERS)
def test_a_run_that_is_repeated_for_its_gradient_takes_all_weights_as_they_are_then(what):
    """What it had computed was overwritten by another run, as in no_grad(); packed weights are those of the moment, as biases
    are that are read where they lie."""
    model, x = drawn(what)
    y, factor = recorded(model, x)
    for p in model.parameters():
        p[...] = 2 * p.numpy()
    with fc.no_grad():
        model(x)
    got = gradients(model, y, factor)
    fresh, x = drawn(what)
    for p in fresh.parameters():
        p[...] = 2 * p.numpy()
    for a, b in zip(got, gradients(fresh, *recorded(fresh, x)), strict=True):
        np.testing.assert_array_equal(a, b)
