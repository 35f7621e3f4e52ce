"""Values: those that somebody needs are kept, and made again when lost; others are released."""

from __future__ import annotations

from collections.abc import Iterable

from agentic_ray.errors import LostDataError
from agentic_ray.graph.task import Bundle
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.events import Recompute, Release, ValueInfo
from agentic_ray.schedule.graphs import Graphs
from agentic_ray.schedule.queues import Queues
from agentic_ray.schedule.records import Graph, Record
from agentic_ray.schedule.refusal import interrupted


def is_spare(record: Record) -> bool:
    """Whether a bundle is to run again for lost values that nobody needs any more."""
    if not record.again or record.done:
        return False
    graph = record.graph
    return not any(graph.uses.get(key) and key not in graph.values for key in record.bundle.outputs)


class Demand:
    """Values that were made, used up or lost, and the bundles that this makes ready or needless."""

    def __init__(self, books: Books, queues: Queues, graphs: Graphs) -> None:
        self._books = books
        self._offer = queues.offer
        self._graphs = graphs

    def made(self, record: Record, made: tuple[ValueInfo, ...]) -> None:
        """Keep the values of a finished bundle, offer those that waited for them, and release what
        nobody needs."""
        graph, bundle = record.graph, record.bundle
        unwanted: list[str] = []
        values = graph.values
        for info in made:
            key = info.key
            if not graph.uses.get(key):
                unwanted.append(key)
                continue
            there = len(values)
            values.setdefault(key, graph.location(info))
            if len(values) == there:
                continue  # the copy of another attempt, still good
            consumers = graph.consumers.get(key)
            if not consumers or key in graph.outputs:
                graph.outputs_missing -= 1
            if consumers:
                for consumer in consumers:
                    consumer.missing -= 1
                    if not consumer.missing:
                        self._offer(consumer)
                if len(made) == 1:
                    codelet = bundle.tasks[-1].codelet.name
                    self._books.model.observe_bytes(codelet, info.size_bytes)
        if bundle.inputs:
            unwanted += self._drop_uses(graph, bundle.inputs)
        if unwanted:
            self._books.commands.append(Release(graph.graph_id, tuple(unwanted)))
        if not graph.outputs_missing:
            self._graphs.maybe_finish(graph)

    def give_up(self, record: Record) -> None:
        """Count a bundle as done that need not run; release the inputs that only it needed."""
        record.done = True
        released = self._drop_uses(record.graph, record.bundle.inputs)
        if released:
            self._books.commands.append(Release(record.graph.graph_id, tuple(released)))

    def _drop_uses(self, graph: Graph, keys: Iterable[str]) -> list[str]:
        """Count one use less of each value in ``keys``; return those that nobody needs any more.

        A bundle that was to make lost values again counts as done if it has not started and nobody
        needs any of its values any more. Its own inputs then lose a use too, and so on up the
        graph.
        """
        released: list[str] = []
        pending = list(keys)
        while pending:
            key = pending.pop()
            graph.uses[key] -= 1
            if graph.uses[key]:
                continue
            if graph.values.pop(key, None) is not None:
                released.append(key)
                for consumer in graph.consumers.get(key, ()):
                    consumer.missing += 1
            producer = graph.remaker(key)
            if producer is not None and not producer.running and is_spare(producer):
                producer.done = True
                pending += producer.bundle.inputs
        return released

    def lose(self, graph: Graph, keys: Iterable[str]) -> None:
        """Drop values that are gone; have those that are still needed made again, up the graph."""
        gone: list[str] = []
        seen: set[str] = set()
        once: Bundle | None = None
        pending = [] if graph.over else list(keys)
        while pending:
            key = pending.pop()
            producer = graph.maker(key)
            if producer is None or key in seen:
                continue
            seen.add(key)
            if graph.values.pop(key, None) is not None:
                gone.append(key)
                if key in graph.outputs:
                    graph.outputs_missing += 1
                    graph.finished = False
                for consumer in graph.consumers.get(key, ()):
                    consumer.missing += 1
            if not graph.uses.get(key):
                continue
            if (producer.done or producer.begun) and producer.bundle.has_effects:
                once = producer.bundle
                continue
            if producer.done:
                producer.done = False
                producer.again = True
                for name in producer.bundle.inputs:
                    graph.uses[name] += 1
            pending += (name for name in producer.bundle.inputs if name not in graph.values)
            self._offer(producer)
        if gone:
            self._books.commands.append(Recompute(graph.graph_id, tuple(gone)))
        if once is not None and not graph.finished:
            lost = LostDataError("a value that it made is lost")
            self._graphs.fail(graph, interrupted(once, lost), once)
