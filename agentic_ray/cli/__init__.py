"""The command line. Each command lives in a module of its own group.

Commands import what they need when they run, so that ``--help`` is quick.
"""

from agentic_ray.cli.app import main

__all__ = ["main"]
