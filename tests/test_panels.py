"""How weights with channels in the lanes are cut into panels (fastcnn/ops/panels.py)."""

from types import SimpleNamespace

import numpy as np
import pytest

from fastcnn.ops.panels import make_panels


def _panels(lanes, groups, nv, vw=8):
    taps = [(0, [(lane, 0) for lane in range(vw)])]
    group = dict(s_group=0, s_lane=1, s_red=1)
    per_group = lanes // groups
    blocks = -(-lanes // vw)
    return make_panels(SimpleNamespace(vw=vw), lanes, per_group, per_group, blocks, vw, 1, taps, nv, group)


@pytest.mark.parametrize("nv", [1, 2, 3])
@pytest.mark.parametrize("lanes", [1, 8, 9, 32, 40, 50, 128, 200])
def test_panels_hold_each_channel_once_and_are_as_wide_as_each_other(lanes, nv):
    _, panels = _panels(lanes, 1, nv)
    widths = panels.x_panels[:, 2]
    assert panels.count == -(-len(range(0, lanes, 8)) // nv)
    assert widths.max() - widths.min() <= 1 and widths.max() == panels.width_vectors <= nv
    held = np.concatenate([np.arange(first, first + count) for _, first, count in panels.w_panels])
    np.testing.assert_array_equal(held, np.arange(lanes))
    np.testing.assert_array_equal(panels.x_panels[:, 1] * 8, panels.w_panels[:, 1])


def test_panels_of_groups_begin_where_groups_do():
    """Groups of a vector and a half: of two groups' width, each panel needs the channels of its two groups alone."""
    runs, panels = _panels(60, 5, 3)
    np.testing.assert_array_equal(panels.w_panels[:, 1], [0, 24, 48])
    assert len(runs) == 3
