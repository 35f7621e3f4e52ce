"""Python's search for garbage in cycles, put off while many objects are made that all stay.

A plan of 10⁵ tasks makes millions of objects within a second or two. Python would look through all
of them again and again meanwhile, which takes as long as half of the planning.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_put_off() -> Iterator[None]:
    """Context in which Python does not look for garbage in cycles.

    It does again afterwards, if it did before. Threads that are in such a context at a time may end
    each other's early, which costs time and nothing else.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
