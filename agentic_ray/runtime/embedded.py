"""Starts an embedded Ray without two processes of Ray's that nobody asks anything there.

The dashboard's process, which without a dashboard only sends statistics of use, and the autoscaler,
which has no machines to add. Each imports all of Ray, and `ray.init` waits for the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import node

_ray_node: Any = node


def init_embedded(**options: Any) -> None:
    """Call `ray.init` with ``options``, so that it starts a Ray on this machine.

    Raises
    ------
    ValueError, TypeError
        An option can never be met.
    Exception
        Ray did not come up.
    """
    with _fewer_processes():
        ray.init(address="local", include_dashboard=False, **options)


class _Node(_ray_node.Node):  # type: ignore[misc]  # Ray has no types here
    """A node of Ray's that starts no dashboard and no autoscaler. (Ray offers no setting.)"""

    def start_api_server(self, **options: Any) -> None:
        self._webui_url = ""

    def start_monitor(self) -> None:
        pass  # see the head of this module


@contextmanager
def _fewer_processes() -> Iterator[None]:
    before = _ray_node.Node
    _ray_node.Node = _Node
    try:
        yield
    finally:
        _ray_node.Node = before
