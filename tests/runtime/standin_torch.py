"""A stand-in for a GPU framework: tensors that take memory of a stand-in card, and nothing else.

It looks for its card as CUDA does, in ``CUDA_VISIBLE_DEVICES``, and keeps account of the memory of
each process in files that the NVML stand-in reads. Imported as ``torch`` it has the error class of
PyTorch, under its name and in its module.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CARDS = "STANDIN_CARDS"
"""Names the folder with a folder for each card, by its UUID. There ``total`` and ``others`` hold
bytes: the card's memory, and what programs that are no processes here hold."""


class OutOfMemoryError(RuntimeError):
    """As PyTorch's."""


OutOfMemoryError.__module__ = "torch"


class Tensor:
    """Memory of the card, given back when this is dropped."""

    def __init__(self, size_bytes: int) -> None:
        _change(size_bytes)  # raises, and nothing is to be given back
        self.size_bytes = size_bytes

    def __del__(self) -> None:
        if "size_bytes" in self.__dict__:
            _change(-self.size_bytes)


def empty(size_bytes: int) -> Tensor:
    """Take memory; raise OutOfMemoryError if the card has not so much."""
    return Tensor(size_bytes)


def card() -> str:
    """The UUID of the card that this process computes on: the first that it sees."""
    return visible()[0]


def visible() -> list[str]:
    """The UUIDs of the cards that this process sees."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    assert named.startswith(("GPU-", "MIG-")), f"no card is visible: {named!r}"
    return named.split(",")


def folder_of(uuid: str) -> Path:
    return Path(os.environ[CARDS]) / uuid


def used_by(uuid: str) -> dict[int, int]:
    """The bytes that each living process holds on a card."""
    found: dict[int, int] = {}
    for entry in (folder_of(uuid) / "allocations").iterdir():
        if not entry.name.isdigit() or not Path(f"/proc/{entry.name}").exists():
            continue
        text = entry.read_text().strip()
        found[int(entry.name)] = int(text or 0)
    return found


def set_others(uuid: str, size_bytes: int) -> bool:
    """Let another program hold so much of a card; False if there is not so much left."""
    with _locked(uuid) as folder:
        if size_bytes + sum(used_by(uuid).values()) > int((folder / "total").read_text()):
            return False
        _write(folder / "others", str(size_bytes))
        return True


def make_card(uuid: str, total_bytes: int) -> Path:
    """Make an empty card; return the folder for the NVML stand-in."""
    folder = folder_of(uuid)
    (folder / "allocations").mkdir(parents=True)
    _write(folder / "total", str(total_bytes))
    _write(folder / "others", "0")
    return folder / "allocations"


def _change(by_bytes: int) -> None:
    uuid = card()
    with _locked(uuid) as folder:
        held = used_by(uuid)
        taken = sum(held.values()) + int((folder / "others").read_text())
        total = int((folder / "total").read_text())
        if by_bytes > 0 and taken + by_bytes > total:
            with (folder / "failures").open("a") as failures:
                failures.write(f"{os.getpid()} {by_bytes} {total - taken}\n")
            raise OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {by_bytes} bytes, {total - taken} are free"
            )
        own = held.get(os.getpid(), 0) + by_bytes
        _write(folder / "allocations" / str(os.getpid()), str(own))


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


@contextmanager
def _locked(uuid: str) -> Iterator[Path]:
    folder = folder_of(uuid)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
