"""``%load_ext agentic_ray``: magics of IPython, and live views of jobs and the cluster."""

from __future__ import annotations

from typing import Any

from agentic_ray.notebook.live import Live, live

__all__ = ["Live", "live", "load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: Any) -> None:
    """Register the magics; IPython calls it for ``%load_ext agentic_ray``."""
    from agentic_ray.notebook.magics import NAMES, ClusterMagics  # imports IPython, an extra

    if NAMES["cell"][0] not in shell.magics_manager.magics["cell"]:
        shell.register_magics(ClusterMagics)


def unload_ipython_extension(shell: Any) -> None:
    """Remove the magics; IPython calls it for ``%unload_ext agentic_ray``."""
    from agentic_ray.notebook.magics import NAMES  # imports IPython, an extra

    for kind, names in NAMES.items():
        for name in names:
            shell.magics_manager.magics[kind].pop(name, None)
