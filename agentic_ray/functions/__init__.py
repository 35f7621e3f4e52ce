"""Functions of any framework: `function` says what one needs, `map` calls it on many items."""

from agentic_ray.functions.declared import Function, function
from agentic_ray.functions.mapping import Map, map

__all__ = ["Function", "Map", "function", "map"]
