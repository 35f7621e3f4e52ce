"""Tools for tests of programs on agentic_ray."""

from agentic_ray.testing.chaos import Chaos, Kill

__all__ = ["Chaos", "Kill"]
