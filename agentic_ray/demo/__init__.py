"""The main job, end to end on real data: `agentic-ray demo` runs, shows and checks it."""

from agentic_ray.demo.run import run_demo

__all__ = ["run_demo"]
