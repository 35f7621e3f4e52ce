"""Functions on cards: which card a function's batch runs on, several on one card side by side.

A function runs in a process of its own, whose memory is its own; the executor's slots, turns and
plans are for work that the executor computes itself. Both draw on one account of the card's memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from agentic_ray.graph.task import CARD, Resources
from agentic_ray.schedule.admission import Admission, Fit, fit
from agentic_ray.schedule.beside import beside, host_of
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.leases import STARVING_SECONDS, Leases
from agentic_ray.schedule.load import MOST_PROCESSES
from agentic_ray.schedule.placement import Placement
from agentic_ray.schedule.placing import Placer
from agentic_ray.schedule.queues import Queues
from agentic_ray.schedule.ready import ReadyQueue
from agentic_ray.schedule.records import Record, urgency
from agentic_ray.schedule.starting import Starter, send_to_cpu
from agentic_ray.schedule.view import Executor
from agentic_ray.telemetry.state import format_bytes

MOST_OFFERED: Final = 64
"""Most waiting batches that are looked at when something changed."""
LEAST_PROCESSES: Final = 2
PROCESSES_PER_CPU: Final = 2
"""Calls of functions at once on the cards of a node for each of its CPUs, and at least on a card:
one computes there while another reads and writes on the host."""


def is_for_cards(kinds: Sequence[str]) -> bool:
    """Whether bundles of these device kinds run on a card in processes of their own."""
    return kinds[:1] == (CARD,)


def choose_card(
    need_bytes: int,
    share: float,
    cards: Iterable[Executor],
    *,
    warm: str,
    cpu: bool,
    items: int,
) -> Admission:
    """Decide on a batch of a function, given the cards that it may use.

    Parameters
    ----------
    need_bytes : int
        Memory that its process may come to hold; 0: not known, then it has the card's processes
        to itself.
    share : float
        Fraction of a card that it was declared to take; 0: it shares by memory alone.
    warm : str
        Name of the function: a card with a warm process of it is better.
    cpu : bool
        Whether it can run on a CPU.
    items : int
        Number of items: it can run in at most as many parts.

    Notes
    -----
    Among the cards on which it fits now, the one with a warm process goes first, then the one with
    the fewest processes at work, then the one with most memory left. If it fits on none it waits
    for batches of ours to end. If other programs hold the memory it goes to a CPU where it can, and
    waits where it cannot; if it is too large for every card it runs in parts.
    """
    usable = [card for card in cards if card.healthy and not card.silent]
    if not usable:
        return Admission(None, to_cpu=cpu, reason="no card is left for it")
    fits = {card: fit(need_bytes, card) for card in usable}
    now = [
        card
        for card in usable
        if fits[card] is Fit.NOW and card.held.takes_process(need_bytes, share)
    ]
    if now:
        return Admission(min(now, key=lambda card: _preference(card, warm)))
    if Fit.NOW in fits.values() or Fit.LATER in fits.values():
        return Admission(None, reason="waits for memory of batches in flight")
    needs = f"needs about {format_bytes(need_bytes)} of GPU memory"
    if Fit.BLOCKED in fits.values():
        return Admission(None, to_cpu=cpu, reason=f"{needs}, and other programs hold it")
    largest = max(usable, key=lambda card: (card.offer.memory_bytes or 0, -card.order))
    budget = largest.offer.memory_bytes or 0
    parts = math.ceil(need_bytes / budget) if budget else items + 1
    reason = f"{needs}, more than the {format_bytes(budget)} of the largest card"
    if cpu and parts > items:
        return Admission(None, to_cpu=True, reason=reason)
    if largest.held.memory_bytes or not largest.held.takes_process(0, share):
        return Admission(None, reason=f"{reason}; waits to have it alone")
    parts = min(parts, items)
    return Admission(largest, max(parts, 1), reason=f"{reason}; runs in {parts} parts")


def _preference(card: Executor, warm: str) -> tuple[bool, int, int, int]:
    left = (card.offer.memory_bytes or 0) - card.held.memory_bytes
    return (card.held.warm.get(warm, 0) <= 0, card.held.processes, -left, card.order)


class CardPlacer:
    """Waiting batches of functions in, `Start` commands out."""

    def __init__(
        self, books: Books, queues: Queues, starter: Starter, placer: Placer, leases: Leases
    ) -> None:
        self._view = books.view
        self._model = books.model
        self._queues = queues
        self._starter = starter
        self._placer = placer
        self._leases = leases

    def schedule(self) -> None:
        """Start the waiting batches of functions for which cards have room."""
        for lane, queue in list(self._queues.lanes.items()):
            if queue and is_for_cards(lane[0]):
                self._place_functions(queue)

    def _place_functions(self, queue: ReadyQueue) -> None:
        """Start the waiting batches that fit, the most urgent first; the rest goes on waiting."""
        window: dict[str, Record] = {}
        queue.fill(window, MOST_OFFERED)
        kept = self._leases.kept()
        full: set[object] = set()
        sent_to_cpu = False
        for record in sorted(window.values(), key=lambda r: (not self._starves(r), urgency(r))):
            record.queued = False
            task = record.bundle.tasks[0]
            shape = (task.codelet.name, record.resources, record.bundle.items, record.short)
            if shape not in full and not self._place_function(record, kept):
                full.add(shape)
            if not record.running:
                sent_to_cpu = sent_to_cpu or not is_for_cards(record.lane[0])
                self._queues.offer(record)
        if sent_to_cpu:
            self._placer.schedule()

    def _place_function(self, record: Record, kept: set[Executor]) -> bool:
        """Start a batch on a card, or send it to the CPUs; return False if it waits."""
        bundle, resources = record.bundle, record.resources
        task = bundle.tasks[0]
        cpu = "cpu" in record.lane[0] and self._view.has(("cpu",), record.lane[2])
        there = self._view.cards()
        if not there:
            if not cpu or self._view.awaited_gpus:
                return False
            send_to_cpu(record, "this cluster has none")
            return True
        need = self._model.device_peaks.need_bytes(
            task.codelet.name, bundle.items, resources.gpu_memory_bytes
        )
        cards = [card for card in there if card.place not in record.short]
        cards = [card for card in cards if card.suits(record.lane[2])]
        free = [
            card
            for card in cards
            if card not in kept
            and card.held.processes < self._most_processes(card)
            and self._host_admits(card, resources)
        ]
        answer = choose_card(
            need,
            resources.gpus,
            free or cards,
            warm=task.codelet.name,
            cpu=cpu,
            items=bundle.items,
        )
        if answer.to_cpu:
            send_to_cpu(record, answer.reason)
            return True
        card = answer.executor
        if card is None or card not in free:
            self._keep_waiting(record, cards, kept)
            return False
        share = replace(resources, gpu_memory_bytes=-(-need // answer.parts))
        reason = answer.reason or _reason(need, resources.gpus, card)
        placement = Placement(bundle.key, card.node_id, card.device, None, None, reason)
        record.waits_since = None
        self._starter.start(record, placement, card, share, answer.parts, process="function")
        return True

    def _most_processes(self, card: Executor) -> int:
        """Return how many calls run on a card at once: the CPUs of its node have to feed them."""
        neighbours = self._view.rows[card.node_id]
        cpus = sum(one.slots for one in neighbours if one.kind == "cpu")
        gpus = sum(one.kind != "cpu" for one in neighbours)
        return min(MOST_PROCESSES, max(LEAST_PROCESSES, PROCESSES_PER_CPU * cpus // gpus))

    def _keep_waiting(self, record: Record, cards: Sequence[Executor], kept: set[Executor]) -> None:
        """Note since when a batch waits. One that waits for long keeps the largest card from all
        less urgent ones until it has room there."""
        if record.waits_since is None:
            record.waits_since = self._view.now_seconds
        if self._starves(record) and cards:
            kept.add(max(cards, key=lambda card: (card.offer.memory_bytes or 0, -card.order)))

    def _starves(self, record: Record) -> bool:
        since = record.waits_since
        return since is not None and self._view.now_seconds - since >= STARVING_SECONDS

    def _host_admits(self, card: Executor, resources: Resources) -> bool:
        """Whether the card's node has the CPUs and the memory that a function takes beside it."""
        if not card.has_left(resources.where):
            return False
        host = host_of(self._view, card, resources.cpus, resources.memory_bytes)
        share = beside(resources.cpus, resources.memory_bytes)
        return host is None or host.admits(share, opaque=True)


def _reason(need_bytes: int, share: float, card: Executor) -> str:
    budget, calls = card.offer.memory_bytes, card.held.processes
    left = None if budget is None else budget - card.held.memory_bytes
    needs = f"needs {format_bytes(need_bytes)}" if need_bytes else "its memory is not known yet"
    of_card = f", {share:g} of a card" if share else ""
    company = f"beside {calls} other calls" if calls else "no other call there"
    return f"{needs}{of_card}; {format_bytes(left)} can be had there, {company}"
