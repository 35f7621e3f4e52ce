"""Functions of any framework: `function` says what one needs, `map` calls it on many items, and
`submit` calls it once."""

from agentic_ray.functions.declared import Function, function
from agentic_ray.functions.mapping import Map, map
from agentic_ray.functions.submitting import FunctionJob, submit

__all__ = ["Function", "FunctionJob", "Map", "function", "map", "submit"]
