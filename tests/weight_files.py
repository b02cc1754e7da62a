"""Files of weights for the tests, written without torch."""

import hashlib

import numpy as np
import test_torch_file as by_hand


def write_pth(path, state):
    """The state dict as torch.save would write it; returns the path."""
    items, members = [], {}
    for i, (name, array) in enumerate(state.items()):
        kind = {"f4": "FloatStorage", "i8": "LongStorage", "f2": "HalfStorage"}[array.dtype.str[1:]]
        stride = tuple(int(np.prod(array.shape[d + 1 :])) for d in range(array.ndim))
        items.append((name, by_hand.tensor(str(i), kind, array.size, 0, array.shape, stride)))
        members[f"data/{i}"] = array.tobytes()
    return by_hand.write_zip(path, by_hand.state(*items), members)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def same(model, state):
    """Assert that the model holds exactly these arrays."""
    own = model.state_dict()
    assert set(own) == set(state)
    for name, value in own.items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)
