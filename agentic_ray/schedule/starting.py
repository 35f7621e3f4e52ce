"""Sends placed bundles to their executors, as far as these have room, and notes when they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentic_ray.graph.task import Resources
from agentic_ray.schedule.admission import Fit, admit, can_split, fit, working_set_bytes
from agentic_ray.schedule.beside import let_card_go, take_card
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.events import Process, Start
from agentic_ray.schedule.placement import Placement, new_tuple
from agentic_ray.schedule.poison import process_of
from agentic_ray.schedule.records import Attempt, Record
from agentic_ray.schedule.view import Executor


def send_to_cpu(record: Record, why: str) -> None:
    """Let a bundle run on CPUs only, from now on."""
    record.bundle = record.bundle.on_cpu()
    record.lane = (record.bundle.kinds(), *record.lane[1:])
    record.note = f"not on a GPU: {why}"


class Starter:
    """Placements in, `Start` commands out."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._view = books.view
        self._attempts = books.attempts

    def start_all(
        self,
        placements: Sequence[Placement],
        records: Sequence[Record],
        places: Sequence[Executor],
    ) -> bool:
        """Start the admitted placements; return whether some wait for memory or go to a CPU."""
        full: set[Executor] = set()
        waits = False
        for placement, record, executor in zip(placements, records, places, strict=True):
            started = executor not in full and self.start_if_admitted(
                record, placement, executor, executor.room(), full
            )
            waits = waits or (executor.kind != "cpu" and not started)
        return waits

    def start_if_admitted(
        self,
        record: Record,
        placement: Placement,
        executor: Executor,
        room: int,
        full: set[Executor],
    ) -> bool:
        """Start a bundle if its executor, which has ``room`` for more, takes it now. Otherwise add
        the executor to ``full``: nothing less urgent overtakes a bundle that waits for room."""
        opaque = record.lane[1]
        if not executor.has_left(record.lane[2]):
            full.add(executor)
            return False
        if executor.kind == "gpu":
            room = executor.room(opaque) if opaque else room
            return self._start_on_gpu(record, placement, executor, room, full)
        if not executor.admits(record.resources, opaque, room):
            full.add(executor)
            return False
        self.start(record, placement, executor, record.resources)
        return True

    def _start_on_gpu(
        self,
        record: Record,
        placement: Placement,
        wanted: Executor,
        room: int,
        full: set[Executor],
    ) -> bool:
        """Start a bundle on a GPU if memory admits it; False if it waits or goes to a CPU."""
        bundle = record.bundle
        values = record.graph.values
        sizes = {key: values[key].size_bytes for key in bundle.inputs} if bundle.inputs else {}
        need = working_set_bytes(bundle, sizes)
        if fit(need, wanted) is Fit.NOW:
            if not room:
                full.add(wanted)
                return False
            share = record.resources
            if need != share.gpu_memory_bytes:
                share = replace(share, gpu_memory_bytes=need)
            self.start(record, placement, wanted, share)
            return True
        answer = admit(
            need,
            wanted,
            (
                gpu
                for gpu in self._view.pools["gpu"].executors
                if gpu not in full and gpu.has_left(record.lane[2])
            ),
            split=can_split(bundle),
            cpu="cpu" in record.lane[0] and self._view.has(("cpu",), record.lane[2]),
        )
        chosen = answer.executor
        if answer.to_cpu:
            send_to_cpu(record, answer.reason)
            return False
        if chosen is None or not chosen.room(record.lane[1]):
            full.add(wanted)
            return False
        if answer.reason:
            reason = f"{placement.reason}; {answer.reason}"
            placement = placement._replace(
                node_id=chosen.node_id, device=chosen.device, reason=reason
            )
        share = replace(record.resources, gpu_memory_bytes=-(-need // answer.parts))
        self.start(record, placement, chosen, share, answer.parts)
        return True

    def start(
        self,
        record: Record,
        placement: Placement,
        executor: Executor,
        resources: Resources,
        parts: int = 1,
        *,
        copy: bool = False,
        process: Process = "shared",
    ) -> None:
        """Send a bundle to an executor. Bundles that wait behind it there come no nearer to
        starting, so only the view is told."""
        books = self._books
        number = record.attempts
        key = (record.bundle_id, number)
        record.attempts = number + 1
        record.running += 1
        record.queued = False
        now = self._view.now_seconds
        begins, ends = placement.predicted_start_seconds, placement.predicted_finish_seconds
        if begins is None or ends is None:
            predicted = books.usual_seconds(executor)
        else:
            predicted = ends - begins
        if process != "function":
            executor.sent(now, predicted, resources)
        books.dirty[executor] = None
        if record.note:
            placement = placement._replace(reason=f"{placement.reason}; {record.note}")
        is_gpu = executor.kind != "cpu"
        if not is_gpu and (record.lane[1] or record.crashed):
            process = process_of(record, "cpu", books.retry)
        begun = None
        if executor.held.in_flight <= executor.offer.slots:  # it begins when its inputs are there
            begun = begins if begins and begins > now else now
        expected = ends or now + predicted
        self._attempts[key] = attempt = Attempt(
            record, executor, resources, predicted, now, begun, expected, process
        )
        if process == "function":
            take_card(books, attempt)
        elif process != "shared":
            books.own_processes += 1
        need = resources.gpu_memory_bytes if is_gpu else 0
        graph_id, bundle = record.graph.graph_id, record.bundle
        command = (graph_id, key[0], number, bundle, placement, need, parts, copy, process)
        books.commands.append(new_tuple(Start, command))

    def end(self, bundle_id: int, attempt: int) -> Attempt | None:
        """Forget an attempt, which has ended, and return it; None if it is not known."""
        found = self._attempts.pop((bundle_id, attempt), None)
        if found is None:
            return None
        books, executor, process = self._books, found.executor, found.process
        found.record.running -= 1
        if process == "function":
            let_card_go(books, found)
        else:
            if process != "shared":
                books.own_processes -= 1
            executor.ended(self._view.now_seconds, found.predicted_seconds, found.resources)
        books.touched[executor] = books.dirty[executor] = None
        return found
