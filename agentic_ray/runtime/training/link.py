"""`Link`: how a worker's loop reaches Ray Train and the desk of its training."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Link(Protocol):
    """Connection of one worker.

    Attributes
    ----------
    rank, world_size, local_rank : int
        Number of the worker, of all workers, and its number on its node.
    on_gpu : bool
        Whether it has a card of its own.
    """

    rank: int
    world_size: int
    local_rank: int
    on_gpu: bool

    def report(self, metrics: Mapping[str, Any], folder: str | None) -> None:
        """Wait for all workers to report, and keep the files of ``folder``, if there is one, as the
        training's checkpoint, together with those of the other workers."""
        ...

    def tell(self, index: int, metrics: Mapping[str, Any]) -> None:
        """Tell the caller of a report, which is number ``index`` of the curve."""
        ...

    def checkpoint(self) -> AbstractContextManager[str | None]:
        """Give a folder with the files of the last checkpoint; None if there is none."""
        ...
