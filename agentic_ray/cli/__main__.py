"""``python -m agentic_ray.cli``: the command line without its console script."""

from agentic_ray.cli.app import main

main()
