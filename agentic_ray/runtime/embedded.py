"""Starts an embedded Ray without two processes of Ray's that nobody asks anything there.

The dashboard's process, which without a dashboard only sends statistics of use, and the autoscaler,
which has no machines to add. Each imports all of Ray, and `ray.init` waits for the first.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psutil
import ray
from ray._private import node

from agentic_ray.errors import SessionError

_logger = logging.getLogger("agentic_ray")
_ray_node: Any = node
_STARTS: Final = 3
_MARKS: Final = ("gcs_server", "raylet", "--gcs-address=")
"""Texts in the command lines of the parts of an embedded Ray."""


def init_embedded(until: float = 0.0, **options: Any) -> None:
    """Call `ray.init` with ``options``, so that it starts a Ray on this machine.

    On a busy machine a part of Ray may be too late for another, which then ends; so the start is
    tried three times at least, and until `time.monotonic` shows ``until``.

    Raises
    ------
    ValueError, TypeError
        An option can never be met.
    SessionError
        Ray did not come up.
    """
    for number in itertools.count(1):
        before = {child.pid for child in psutil.Process().children()}
        try:
            with fewer_processes():
                ray.init(address="local", include_dashboard=False, **options)
        except (ValueError, TypeError):
            raise  # an option that can never be met
        except Exception as error:  # Ray raises a plain Exception here
            ray.shutdown()
            _end_parts(before)
            if number >= _STARTS and time.monotonic() > until:
                raise SessionError(
                    f"an embedded Ray did not come up in {number} tries, the last one: {error} "
                    "Is the machine very busy, or /tmp full? Ray's own logs are in "
                    "/tmp/ray/session_latest/logs"
                ) from error
            _logger.warning("Ray did not come up (%s); it is started once more", error)
        else:
            return


def _end_parts(before: Container[int]) -> None:
    """End processes that a failed start of Ray has left: children newer than ``before``."""
    for child in psutil.Process().children():
        try:
            line = " ".join(child.cmdline())
            if child.pid not in before and any(mark in line for mark in _MARKS):
                child.kill()
                child.wait(5)
        except psutil.Error:
            continue  # it has ended by itself


class _Node(_ray_node.Node):  # type: ignore[misc]  # Ray has no types here
    """A node of Ray's that starts no dashboard and no autoscaler. (Ray offers no setting.)"""

    def start_api_server(self, **options: Any) -> None:
        self._webui_url = ""

    def start_monitor(self) -> None:
        pass  # see the head of this module


@contextmanager
def fewer_processes() -> Iterator[None]:
    """Context in which a head of a cluster that is started has neither of the two processes."""
    before = _ray_node.Node
    _ray_node.Node = _Node
    try:
        yield
    finally:
        _ray_node.Node = before
