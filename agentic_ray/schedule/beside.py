"""The CPUs and the memory of a node that a call or a lease on one of its cards takes beside it."""

from __future__ import annotations

from agentic_ray.graph.task import Resources
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.records import Attempt
from agentic_ray.schedule.view import ClusterView, Executor


def beside(cpus: float, memory_bytes: int) -> Resources:
    """Return the resources that are counted on the node: at least one CPU."""
    return Resources(cpus=max(1.0, cpus), memory_bytes=memory_bytes)


def host_of(view: ClusterView, card: Executor, cpus: float, memory_bytes: int) -> Executor | None:
    """Return the executor that keeps account of a card's node, if there is anything to keep."""
    if not (cpus or memory_bytes):
        return None
    return view.executors.get((card.node_id, "cpu"))


def take_card(books: Books, attempt: Attempt) -> None:
    """Enter a function's batch in the accounts of its card and its node."""
    card, resources = attempt.executor, attempt.resources
    card.held.take_process(attempt.record.bundle.tasks[0].codelet.name, resources)
    host = host_of(books.view, card, resources.cpus, resources.memory_bytes)
    if host is not None:
        share = beside(resources.cpus, resources.memory_bytes)
        host.sent(books.view.now_seconds, attempt.predicted_seconds, share)
        books.dirty[host] = None
    attempt.host = host


def let_card_go(books: Books, attempt: Attempt) -> None:
    """Take a function's batch, which has ended, out of the accounts."""
    card, resources, host = attempt.executor, attempt.resources, attempt.host
    card.held.let_process_go(attempt.record.bundle.tasks[0].codelet.name, resources)
    if host is not None:
        share = beside(resources.cpus, resources.memory_bytes)
        host.ended(books.view.now_seconds, attempt.predicted_seconds, share)
        books.touch(host)
