"""Leases of cards: memory or whole cards set aside for code that is not run by this package.

A lease of several cards or nodes is granted all at once or not at all, so that no two of them can
wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

from agentic_ray.graph.task import Resources
from agentic_ray.schedule.admission import Fit, fit, reserve_bytes
from agentic_ray.schedule.beside import beside, host_of
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.events import (
    LeaseEnded,
    LeaseGranted,
    LeaseReleased,
    LeaseRequested,
    NodeUp,
)
from agentic_ray.schedule.view import Executor
from agentic_ray.telemetry.state import format_bytes

STARVING_SECONDS: Final = 10.0
"""A request or a batch of a function that has waited this long keeps cards for itself: others
overtake it no more."""
_MOST_SETS: Final = 20_000
"""Most sets of cards of a node that are compared by their connections."""


@dataclass(slots=True, eq=False)
class _Lease:
    request: LeaseRequested
    cards: list[Executor] = field(default_factory=list)
    hosts: list[Executor] = field(default_factory=list)
    holds: list[Resources] = field(default_factory=list)


def closest(
    cards: Sequence[Executor], count: int, closeness: Mapping[tuple[str, str], float]
) -> tuple[Executor, ...]:
    """Choose the ``count`` of a node's cards that are best connected with each other.

    Parameters
    ----------
    closeness : mapping
        Larger is quicker, by the names of two cards in alphabetic order; 0 where it is not known.

    Examples
    --------
    >>> from agentic_ray.schedule.load import Offer
    >>> cards = [Executor("n", name, "gpu", Offer(1), i) for i, name in enumerate("abcd")]
    >>> [card.device for card in closest(cards, 2, {("b", "d"): 4.0, ("a", "b"): 1.0})]
    ['b', 'd']
    """
    ordered = sorted(cards, key=lambda card: (card.held.processes, card.order))
    if math.comb(len(ordered), count) > _MOST_SETS:
        return tuple(ordered[:count])

    def together(some: Sequence[Executor]) -> float:
        return sum(
            closeness.get((min(a.device, b.device), max(a.device, b.device)), 0.0)
            for a, b in combinations(some, 2)
        )

    return max(combinations(ordered, count), key=together)  # of equal ones the first


class Leases:
    """Requests for leases in, grants out."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._view = books.view
        self._granted: dict[str, _Lease] = {}
        self._queue: list[_Lease] = []
        self._closeness: dict[str, dict[tuple[str, str], float]] = {}

    def granted(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Return the places of each lease that is granted."""
        return {
            lease_id: tuple(held.place for held in lease.cards or lease.hosts)
            for lease_id, lease in self._granted.items()
        }

    @property
    def open_ids(self) -> tuple[str, ...]:
        """Ids of the leases that are granted or asked for."""
        return (*self._granted, *(lease.request.lease_id for lease in self._queue))

    @property
    def next_end_seconds(self) -> float | None:
        """Time at which a waiting request is given up, or keeps cards for itself."""
        due: list[float] = []
        for lease in self._queue:
            request = lease.request
            starves = request.time + STARVING_SECONDS
            due += [at for at in (starves, request.until_seconds) if at > self._view.now_seconds]
        return min((at for at in due if at < math.inf), default=None)

    def request(self, event: LeaseRequested) -> None:
        """Queue a request, or refuse it if no cluster like this one can grant it."""
        if event.lease_id in self._granted:
            return
        why = self._impossible(event)
        if why:
            self._books.commands.append(LeaseEnded(event.lease_id, why, impossible=True))
            return
        self._queue.append(_Lease(event))

    @property
    def wanted_gpus(self) -> int:
        """GPUs that requests wait for."""
        return sum(one.request.cards * one.request.nodes for one in self._queue)

    def release(self, event: LeaseReleased) -> None:
        """End a lease, or forget its request."""
        self._queue = [one for one in self._queue if one.request.lease_id != event.lease_id]
        lease = self._granted.pop(event.lease_id, None)
        if lease is not None:
            self._end_lease(lease)
            self._books.commands.append(LeaseEnded(event.lease_id, event.reason))

    def lose(self, executor: Executor, reason: str) -> None:
        """End the leases on an executor that is gone."""
        for lease_id, lease in list(self._granted.items()):
            if executor in lease.cards or (not lease.cards and executor in lease.hosts):
                del self._granted[lease_id]
                self._end_lease(lease)
                self._books.commands.append(LeaseEnded(lease_id, reason, lost=True))

    def learn_links(self, event: NodeUp) -> None:
        """Keep how closely the cards of a node are connected."""
        self.forget_links(event.node.node_id)
        if event.links:
            self._closeness[event.node.node_id] = {
                (min(first, second), max(first, second)): value
                for first, second, value in event.links
            }

    def forget_links(self, node_id: str) -> None:
        """Forget the cards of a node."""
        self._closeness.pop(node_id, None)

    def kept(self) -> set[Executor]:
        """Return cards that functions leave alone because a lease has waited long for them."""
        kept: set[Executor] = set()
        for lease in self._queue:
            request = lease.request
            if self._view.now_seconds - request.time >= STARVING_SECONDS:
                kept.update(self._places(request, self._could) or ())
        return kept

    def grant(self) -> None:
        """Grant the waiting requests that fit, in the order of arrival; give up those whose time is
        over. A request that has waited long is overtaken no more where it waits."""
        if not self._queue:
            return
        kept: set[Executor] = set()
        waiting: list[_Lease] = []
        for lease in self._queue:
            request = lease.request

            def free(card: Executor, request: LeaseRequested = request) -> bool:
                return card not in kept and self._can(card, request)

            cards = self._places(request, free)
            if cards is not None:
                self._grant(lease, cards)
            elif self._view.now_seconds >= request.until_seconds:
                why = f"it was not granted in time: {self._obstacle_of(request)}"
                self._books.commands.append(LeaseEnded(request.lease_id, why, timed_out=True))
            else:
                waiting.append(lease)
                if self._view.now_seconds - request.time >= STARVING_SECONDS:
                    kept.update(self._places(request, self._could) or ())
        self._queue = waiting

    def _grant(self, lease: _Lease, cards: Sequence[Executor]) -> None:
        request = lease.request
        if not request.cards:
            self._grant_hosts(lease, cards)
            return
        hosts: set[str] = set()
        for card in cards:
            need = self._hold_of(card, request)
            card.held.take_process(f"lease {request.lease_id}", need)
            self._books.touch(card)
            lease.cards.append(card)
            lease.holds.append(need)
            host = host_of(self._view, card, request.cpus, request.memory_bytes)
            if host is not None and card.node_id not in hosts:
                self._take_beside(lease, host)
            hosts.add(card.node_id)
        self._granted[request.lease_id] = lease
        places = tuple(card.place for card in cards)
        sizes = tuple(need.gpu_memory_bytes for need in lease.holds)
        self._books.commands.append(LeaseGranted(request.lease_id, places, sizes))

    def _grant_hosts(self, lease: _Lease, hosts: Sequence[Executor]) -> None:
        """Grant a lease of CPUs alone."""
        for host in hosts:
            self._take_beside(lease, host)
        request = lease.request
        self._granted[request.lease_id] = lease
        places = tuple(host.place for host in hosts)
        self._books.commands.append(LeaseGranted(request.lease_id, places, (0,) * len(places)))

    def _take_beside(self, lease: _Lease, host: Executor) -> None:
        """Take a lease's CPUs and memory of one node."""
        share = beside(lease.request.cpus, lease.request.memory_bytes)
        host.sent(self._view.now_seconds, 0.0, share)
        self._books.dirty[host] = None
        lease.hosts.append(host)

    def _end_lease(self, lease: _Lease) -> None:
        for card, need in zip(lease.cards, lease.holds, strict=True):
            card.held.let_process_go(f"lease {lease.request.lease_id}", need)
            card.held.warm.pop(f"lease {lease.request.lease_id}", None)
            if card.healthy:
                self._books.touch(card)
        share = beside(lease.request.cpus, lease.request.memory_bytes)
        for host in lease.hosts:
            host.ended(self._view.now_seconds, 0.0, share)
            if host.healthy:
                self._books.touch(host)

    # --- where a lease fits ----------------------------------------------------------------

    def _places(
        self, request: LeaseRequested, fits: Callable[[Executor], bool]
    ) -> list[Executor] | None:
        """Return cards for a whole request, or nodes if it is for no cards; None if there are not
        so many."""
        if not request.cards:
            hosts = [host for host in self._hosts() if fits(host)]
            hosts.sort(key=lambda host: host.in_flight)
            return hosts[: request.nodes] if len(hosts) >= request.nodes else None
        by_node: dict[str, list[Executor]] = {}
        for card in self._view.cards():
            if card.healthy and not card.silent and fits(card):
                by_node.setdefault(card.node_id, []).append(card)
        nodes = [node for node, cards in by_node.items() if len(cards) >= request.cards]
        if len(nodes) < request.nodes:
            return None
        # The fullest nodes that suffice, so that whole nodes stay free for larger requests.
        nodes.sort(key=lambda node: len(by_node[node]))
        found: list[Executor] = []
        for node in nodes[: request.nodes]:
            found += closest(by_node[node], request.cards, self._closeness.get(node, {}))
        return found

    def _can(self, card: Executor, request: LeaseRequested) -> bool:
        """Whether a card, and the node beside it, has room for its part of a request now; for a
        request without cards ``card`` is the node's CPU executor."""
        if not request.cards:
            share = beside(request.cpus, request.memory_bytes)
            return request.cpus <= card.slots and card.admits(share, opaque=True)
        need = self._hold_of(card, request)
        if request.share >= 1.0:
            alone = not (card.held.processes or card.in_flight)
            if not alone or fit(request.gpu_memory_bytes, card) is not Fit.NOW:
                return False
        elif fit(need.gpu_memory_bytes, card) is not Fit.NOW:
            return False
        if not card.held.takes_process(need.gpu_memory_bytes or 1, request.share):
            return False
        host = host_of(self._view, card, request.cpus, request.memory_bytes)
        share = beside(request.cpus, request.memory_bytes)
        return host is None or host.admits(share, opaque=True)

    def _could(self, card: Executor) -> bool:
        return True

    def _hosts(self) -> list[Executor]:
        """Return the CPU executors that take work."""
        return [
            one
            for one in self._view.executors.values()
            if one.kind == "cpu" and one.healthy and not one.silent
        ]

    def _hold_of(self, card: Executor, request: LeaseRequested) -> Resources:
        """Return what a request takes of a card: all its memory if it is to have it alone."""
        size = request.gpu_memory_bytes
        if request.share >= 1.0:
            size = max(size, card.offer.memory_total_bytes or 0)
        return Resources(gpus=request.share, gpu_memory_bytes=size)

    def _impossible(self, request: LeaseRequested) -> str:
        """Return why no cluster like this one can grant a request; empty if it may, as one that an
        autoscaler makes larger may."""
        if self._books.retry.may_grow:
            return ""
        if not request.cards:
            # (how many CPUs a node has for this session changes with what others do there)
            count = len(self._hosts())
            if count >= request.nodes:
                return ""
            return f"CPUs of {request.nodes} nodes are asked for; there are {count}"
        cards = self._view.cards()
        if not cards and not self._view.awaited_gpus:
            return "this cluster has no GPU"
        if self._view.awaited_gpus:
            return ""
        totals = [card.offer.memory_total_bytes for card in cards]
        known = [total - reserve_bytes(total) for total in totals if total is not None]
        if len(known) == len(totals) and request.gpu_memory_bytes > max(known):
            return (
                f"{format_bytes(request.gpu_memory_bytes)} of GPU memory are asked for, and the "
                f"largest card can give {format_bytes(max(known))}"
            )
        counts: dict[str, int] = {}
        for card in cards:
            counts[card.node_id] = counts.get(card.node_id, 0) + 1
        if sum(count >= request.cards for count in counts.values()) < request.nodes:
            return (
                f"{request.cards} GPUs on each of {request.nodes} node(s) are asked for; the nodes "
                f"have {', '.join(map(str, sorted(counts.values(), reverse=True)))}"
            )
        return ""

    def _obstacle_of(self, request: LeaseRequested) -> str:
        """Return what keeps each card, or each node, from a request, in words."""
        if not request.cards:
            used = [f"{one.node_id}: {one.in_flight} of {one.slots}" for one in self._hosts()]
            return f"CPUs in use for calls and leases: {'; '.join(used) or 'no node reports'}"
        said: list[str] = []
        for card in self._view.cards():
            if card.silent or not card.healthy:
                why = "its node does not report"
            elif self._can(card, request):
                why = "it is free"
            else:
                left = (card.offer.memory_bytes or 0) - card.held.memory_bytes
                total = format_bytes(card.offer.memory_total_bytes)
                why = f"{format_bytes(max(0, left))} of {total} can be had"
                busy = card.held.processes + card.in_flight
                why += f", {busy} calls and leases of this session there" if busy else ""
            said.append(f"{card.device}: {why}")
        return "; ".join(said) or "no card is there"
