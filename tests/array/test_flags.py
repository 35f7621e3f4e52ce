"""The flags of an array are NumPy's, and setting one raises instead of doing nothing."""

from __future__ import annotations

import numpy as np
import pytest

import agentic_ray.array as xp


def test_flags_are_numpys() -> None:
    plain = np.arange(6.0).reshape(2, 3)
    array = xp.asarray(plain, chunks=(1, 2))
    for ours, numpys in ((array, plain), (array.T, plain.T), (array[:, ::2], plain[:, ::2])):
        assert ours.flags.c_contiguous == numpys.flags.c_contiguous
        assert ours.flags["F_CONTIGUOUS"] == numpys.flags["F_CONTIGUOUS"]
        assert ours.flags.writeable
    assert not xp.broadcast_to(array, (2, 2, 3)).flags.writeable
    assert "C_CONTIGUOUS : True" in repr(array.flags)
    assert array.flags == (array + 1).flags


def test_setting_a_flag_raises() -> None:
    array = xp.arange(3)
    with pytest.raises(AttributeError, match=r"flags\.writeable of an Array cannot be set"):
        array.flags.writeable = False
    with pytest.raises(AttributeError, match=r"flags\.writeable of an Array cannot be set"):
        array.flags["WRITEABLE"] = False
