"""The command ``join``: makes this machine a node of a Ray cluster, within limits that fit it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from agentic_ray.errors import InvalidArgumentError, SessionError

_STORE_SHARE: Final = 0.3
"""Share of a node's memory that its object store gets; Ray's own default is the same."""
_LEAST_STORE_BYTES: Final = 80_000_000
"""Ray refuses less than 75 MiB."""
_LEAST_BYTES: Final = 200_000_000


@dataclass(frozen=True, slots=True)
class Offer:
    """CPUs, GPUs and memory that a machine offers to a cluster; None: Ray counts them itself.

    Raises
    ------
    InvalidArgumentError
        The offer is less than a node of Ray needs.
    """

    cpus: int | None = None
    gpus: int | None = None
    memory_bytes: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.memory_bytes is not None and self.memory_bytes < _LEAST_BYTES:
            raise InvalidArgumentError(
                f"a node needs at least {_LEAST_BYTES // 1_000_000} MB of memory, not "
                f"{self.memory_bytes / 1e6:g} MB"
            )

    def arguments(self) -> list[str]:
        """Return the arguments of `ray start` that make this offer."""
        made: list[str] = []
        if self.cpus is not None:
            made.append(f"--num-cpus={self.cpus}")
        if self.gpus is not None:
            made.append(f"--num-gpus={self.gpus}")
        if self.memory_bytes is not None:
            store = max(_LEAST_STORE_BYTES, int(_STORE_SHARE * self.memory_bytes))
            made += [f"--memory={self.memory_bytes - store}", f"--object-store-memory={store}"]
        if self.labels:
            made.append("--labels=" + ",".join(f"{k}={v}" for k, v in self.labels.items()))
        if self.resources:
            made.append(f"--resources={json.dumps(dict(self.resources))}")
        return made


@click.command()
@click.argument("address", metavar="ADDRESS")
@click.option("--cpus", type=click.IntRange(min=0), help="[default: all of this machine]")
@click.option("--gpus", type=click.IntRange(min=0), help="[default: all of this machine]")
@click.option(
    "--memory",
    metavar="SIZE",
    help="Memory to offer, such as 512MB; the object store takes 30 % of it, 80 MB at least.  "
    "[default: nearly all]",
)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="NAME=NUMBER",
    help="A resource of your own, such as camera=1; may be repeated.",
)
def join(
    address: str,
    cpus: int | None,
    gpus: int | None,
    memory: str | None,
    labels: Sequence[str],
    resources: Sequence[str],
) -> None:
    """Make this machine a node of the Ray cluster at ADDRESS, until interrupted.

    ADDRESS is HOST:PORT of the head, as `ray start --head` has printed it there. Where the cluster
    asks for a token, it is taken from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.

    \b
    agentic-ray join 10.0.0.1:6379 --cpus 1 --memory 512MB --label site=edge
    """
    from agentic_ray.graph.sizes import parse_bytes
    from agentic_ray.runtime.finding import check_reachable

    try:
        size = None if memory is None else parse_bytes(memory)
    except InvalidArgumentError as error:
        raise click.BadParameter(f"no size such as 512MB: {memory!r}", param_hint="--memory") from (
            error
        )
    own = {name: _number(name, text) for name, text in _pairs("--resource", resources).items()}
    offer = Offer(cpus, gpus, size, _pairs("--label", labels), own)
    try:
        check_reachable(address)
    except OSError as error:
        raise SessionError(f"no Ray cluster answers at {address}: {error}") from error
    command = (sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}")
    sys.stdout.flush()
    # This process becomes Ray's: to end it, by any signal, ends the node.
    os.execve(
        sys.executable,
        [*command, "--block", "--disable-usage-stats", *offer.arguments()],
        environment(os.environ, Path.home() / ".ray" / "auth_token"),
    )


def environment(environ: Mapping[str, str], token: Path) -> dict[str, str]:
    """Return ``environ``, with the token sent if there is one and no mode was chosen. Ray by itself
    sends none to other machines; a user who has laid a token here and names the cluster wants it
    sent."""
    found = dict(environ)
    has_token = any(found.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if "RAY_AUTH_MODE" not in found and (has_token or token.is_file()):
        found["RAY_AUTH_MODE"] = "token"
    found.pop("RAY_ADDRESS", None)
    return found


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value) or "," in text:
            raise click.BadParameter(f"NAME=VALUE is needed, not {text!r}", param_hint=option)
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice", param_hint=option)
        found[name] = value
    return found


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise click.BadParameter(f"{name}={text}: no number above 0", param_hint="--resource")
    return number
