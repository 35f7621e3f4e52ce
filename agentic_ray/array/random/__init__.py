"""Random arrays whose numbers depend on seed and position only, never on the chunks."""

from __future__ import annotations

from typing import Any

from numpy.random import SeedSequence

from agentic_ray.array.random.generator import Generator, default_rng

__all__ = ["Generator", "SeedSequence", "default_rng"]

_LEGACY = {
    "rand": "random",
    "randn": "standard_normal",
    "randint": "integers",
    "random_integers": "integers",
    "random_sample": "random",
    "ranf": "random",
    "sample": "random",
    "seed": "default_rng(seed)",
    "RandomState": "default_rng(seed)",
    "get_state": "spawn",
    "set_state": "spawn",
}


def __getattr__(name: str) -> Any:
    """Refuse NumPy's functions that share one hidden generator; name the method to use instead."""
    instead = _LEGACY.get(name, name if hasattr(Generator, name) else "")
    if not instead or name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    what = instead if "(" in instead else f"default_rng(seed).{instead}"
    raise AttributeError(
        f"there is no xp.random.{name}: numbers come from a generator with a seed of its own. Use "
        f"xp.random.{what}"
    )
