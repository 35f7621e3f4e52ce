"""Jobs: workloads by name, the queue, the master that runs them and knows how they ended.

Importing this loads neither Ray nor the runtime; both come with the first job that runs.
"""

from agentic_ray.master.default import job, jobs, submit
from agentic_ray.master.handle import Job
from agentic_ray.master.jobs import JobEvent, JobFailure, JobRecord, JobState
from agentic_ray.master.journal import Journal
from agentic_ray.master.logs import LogLine
from agentic_ray.master.master import Master
from agentic_ray.master.statistics import Statistics
from agentic_ray.master.store import JobStore, MemoryStore
from agentic_ray.master.userfiles import load_workloads
from agentic_ray.master.workloads import Registry, Worker, Workload, registry, worker, workload

__all__ = [
    "Job",
    "JobEvent",
    "JobFailure",
    "JobRecord",
    "JobState",
    "JobStore",
    "Journal",
    "LogLine",
    "Master",
    "MemoryStore",
    "Registry",
    "Statistics",
    "Worker",
    "Workload",
    "job",
    "jobs",
    "load_workloads",
    "registry",
    "submit",
    "worker",
    "workload",
]
