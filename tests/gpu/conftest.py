"""The tests in this folder need a real NVIDIA GPU; without one each is skipped and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_ray.errors import NoSuitableDeviceError
from agentic_ray.runtime.devices import CupyDevice

HERE = Path(__file__).parent


def _why_not() -> str | None:
    try:
        CupyDevice()
    except NoSuitableDeviceError as error:
        return str(error)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents]
    if not mine:
        return
    reason = _why_not()
    for item in mine:
        item.add_marker(pytest.mark.gpu)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=f"no usable GPU here: {reason}"))


@pytest.fixture
def device() -> CupyDevice:
    made = CupyDevice()
    made.set_memory_limit(made.memory().total_bytes)
    made.free_pool()
    return made
