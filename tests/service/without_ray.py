"""`agentic-ray serve` whose Ray is left out: ``python without_ray.py serve …``.

What is tested with it has to do with HTTP and the journal, and Ray takes seconds to start. Jobs
run in processes of their own as ever; those that use the cluster fail.
"""

from agentic_ray.cli import main
from agentic_ray.service import hosting
from agentic_ray.telemetry import ClusterState

hosting.SessionHost.start = lambda self: self._become("ok")  # type: ignore[method-assign]
hosting.SessionHost.cluster = lambda self: ClusterState(nodes=(), taken_at=0.0)  # type: ignore[method-assign]
if __name__ == "__main__":  # (not in the processes that it spawns)
    main()
