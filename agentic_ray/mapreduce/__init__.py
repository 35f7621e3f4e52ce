"""The generic front end: map a function over data of any kind and reduce in a fixed tree."""

from agentic_ray.mapreduce.front import fold, map_reduce, map_reduce_job
from agentic_ray.mapreduce.job import MapReduce

__all__ = ["MapReduce", "fold", "map_reduce", "map_reduce_job"]
