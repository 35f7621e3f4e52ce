"""Clusters described in a line, such as ``nodes=64,gpus=8,memory=256GB,link=25Gbit``. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph.sizes import parse_bytes
from agentic_ray.pictures.wording import bytes_text, counted
from agentic_ray.schedule.virtual import SimCluster, SimNode

MOST_NODES: Final = 100_000
MOST_DEVICES: Final = 4096
"""Most CPUs, and most GPUs, of one node."""
_BITS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)bit(?:/s)?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of node, and how many there are of it.

    Parameters
    ----------
    cpus, gpus : int
    memory_bytes, gpu_memory_bytes : int or None
        Memory of a node, and of each of its GPUs; None: enough for everything.
    link_bytes_per_second : float
        Rate at which a node sends and receives at most.
    speed : float
        How fast its CPUs are; those of the machine that was measured have speed 1.
    """

    nodes: int = 1
    cpus: int = 1
    gpus: int = 0
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    link_bytes_per_second: float = math.inf
    speed: float = 1.0

    def __str__(self) -> str:
        parts = [counted(self.cpus, "CPU")]
        if self.gpus:
            card = (
                "" if self.gpu_memory_bytes is None else f" of {bytes_text(self.gpu_memory_bytes)}"
            )
            parts.append(counted(self.gpus, "GPU") + card)
        if self.memory_bytes is not None:
            parts.append(f"{bytes_text(self.memory_bytes)} of memory")
        if self.link_bytes_per_second < math.inf:
            parts.append(f"{bytes_text(self.link_bytes_per_second)}/s")
        if self.speed != 1:
            parts.append(f"speed {self.speed:g}")
        return f"{counted(self.nodes, 'node')} of {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Described:
    """A cluster that somebody described: kinds of nodes."""

    text: str
    machines: tuple[Machine, ...]

    @property
    def slots(self) -> int:
        """Number of bundles that run at once."""
        return sum(one.nodes * (one.cpus + one.gpus) for one in self.machines)

    @property
    def gpus(self) -> int:
        return sum(one.nodes * one.gpus for one in self.machines)

    def __str__(self) -> str:
        return " and ".join(map(str, self.machines))

    def cluster(self, bytes_per_second: float, latency_seconds: float = 0.0) -> SimCluster:
        """Return the nodes for a virtual run, where none is told otherwise joined by links of
        ``bytes_per_second``."""
        return SimCluster(
            tuple(_nodes(self.machines, bytes_per_second)),
            bytes_per_second=math.inf,
            latency_seconds=latency_seconds,
        )


def _nodes(machines: tuple[Machine, ...], bytes_per_second: float) -> Iterator[SimNode]:
    number = 0
    for one in machines:
        link = one.link_bytes_per_second
        for _ in range(one.nodes):
            yield SimNode(
                f"n{number}",
                one.speed,
                one.cpus,
                one.gpus,
                memory_bytes=one.memory_bytes,
                gpu_memory_bytes=one.gpu_memory_bytes,
                bytes_per_second=link if link < math.inf else bytes_per_second,
            )
            number += 1


def describe_cluster(text: str, here: Machine | None = None) -> Described:
    """Return the cluster that ``text`` describes.

    Parameters
    ----------
    text : str
        ``name=value`` with commas between them: ``nodes``, and of each node ``cpus``, ``gpus``,
        ``memory``, ``gpu_memory`` (sizes such as ``64GB``), ``link`` (``10Gbit``, or bytes a second
        such as ``1.2GB``) and ``speed``. Kinds of nodes are joined by ``+``.
    here : Machine, optional
        A node of the present cluster; what ``text`` does not say is as there.

    Raises
    ------
    InvalidArgumentError
        Something in it cannot be understood, or cannot be.

    Examples
    --------
    >>> print(describe_cluster("nodes=64,cpus=16,gpus=8"))
    64 nodes of 16 CPUs, 8 GPUs
    >>> describe_cluster("nodes=2,cpus=4+gpus=8,cpus=32").slots
    48
    """
    usual = replace(here or Machine(), nodes=1)
    return Described(text.strip(), tuple(_machine(part, usual) for part in text.split("+")))


def _machine(text: str, usual: Machine) -> Machine:
    found: dict[str, int | float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in _FIELDS:
            names = ", ".join(_FIELDS)
            raise InvalidArgumentError(
                f"a cluster is described as nodes=64,gpus=8 (of {names}), not by {part!r}"
            )
        attribute, read = _FIELDS[name]
        if attribute in found:
            raise InvalidArgumentError(f"{name} is given twice in {text.strip()!r}")
        if not equals or not value:
            raise InvalidArgumentError(f"{name} needs a value, as in {name}={_EXAMPLES[name]}")
        found[attribute] = read(name, value)
    if not found:
        raise InvalidArgumentError("a cluster is described as nodes=64,gpus=8, not by nothing")
    machine = replace(usual, **found)  # type: ignore[arg-type]  # each field by its own reader
    if machine.gpu_memory_bytes is not None and not machine.gpus:
        if "gpu_memory_bytes" in found:
            raise InvalidArgumentError(f"gpu_memory is given and no gpus in {text.strip()!r}")
        machine = replace(machine, gpu_memory_bytes=None)
    return machine


def _count(least: int, most: int) -> Callable[[str, str], int]:
    def read(name: str, value: str) -> int:
        try:
            number = int(value.replace("_", ""))
        except ValueError:
            number = -1
        if not least <= number <= most:
            raise InvalidArgumentError(
                f"{name} is a whole number from {least} to {most:,}, not {value!r}"
            )
        return number

    return read


def _size(name: str, value: str) -> int:
    try:
        return parse_bytes(value)
    except InvalidArgumentError:
        raise InvalidArgumentError(f"{name} is a size such as 64GB, not {value!r}") from None


def _rate(name: str, value: str) -> float:
    bits = _BITS.fullmatch(value)
    rate = 0.0
    if bits is not None:
        rate = float(bits[1]) * 1000.0 ** " kmgt".index(bits[2].lower() or " ") / 8
    else:
        try:
            rate = float(parse_bytes(value.removesuffix("/s")))
        except InvalidArgumentError:
            pass  # told below, with what is meant
    if rate <= 0:
        raise InvalidArgumentError(
            f"{name} is a rate such as 10Gbit, or 1.2GB for bytes a second, not {value!r}"
        )
    return rate


def _speed(name: str, value: str) -> float:
    try:
        speed = float(value)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise InvalidArgumentError(
            f"{name} is a number above 0 (1: as fast as the machine that was measured), "
            f"not {value!r}"
        )
    return speed


_FIELDS: Final[dict[str, tuple[str, Callable[[str, str], int | float]]]] = {
    "nodes": ("nodes", _count(1, MOST_NODES)),
    "cpus": ("cpus", _count(1, MOST_DEVICES)),
    "gpus": ("gpus", _count(0, MOST_DEVICES)),
    "memory": ("memory_bytes", _size),
    "gpu_memory": ("gpu_memory_bytes", _size),
    "link": ("link_bytes_per_second", _rate),
    "speed": ("speed", _speed),
}
_EXAMPLES: Final = {
    "nodes": "64",
    "cpus": "16",
    "gpus": "8",
    "memory": "256GB",
    "gpu_memory": "80GB",
    "link": "25Gbit",
    "speed": "1.5",
}
