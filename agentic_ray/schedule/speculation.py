"""Stragglers: a bundle that takes far longer than predicted gets a second copy elsewhere.

The first result wins; ``finishing`` cancels the other copy when it comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from agentic_ray.schedule.admission import Fit, fit, working_set_bytes
from agentic_ray.schedule.books import Books
from agentic_ray.schedule.cost_model import Prediction
from agentic_ray.schedule.placement import Placement
from agentic_ray.schedule.records import Attempt, Record
from agentic_ray.schedule.starting import Starter
from agentic_ray.schedule.view import Executor

_LOOKS_PER_FLOOR = 4.0
_LOOKS_PER_BUNDLE = 8.0
"""Number of looks for late bundles in ``floor_seconds``, or in a typical bundle's seconds if those
are longer."""


@dataclass(frozen=True, slots=True)
class SpeculationRules:
    """Rules by which a bundle under way counts as late.

    Parameters
    ----------
    floor_seconds : float
        A bundle that has run for less is never copied: a copy would cost more than it saves.
    factor : float
        A bundle is late after at least this many times the predicted seconds,
    deviations : float
        and at least so many standard deviations past them (3: the 99.9 % quantile).
    same_device_factor : float
        A copy on the very device, in another process, starts after so many times as long: it helps
        only if the process is to blame (stopped, or stuck), and not the work or the device.
    enabled : bool

    References
    ----------
    J. Dean, S. Ghemawat, "MapReduce", OSDI 2004 (backup tasks); M. Zaharia et al., "Improving
    MapReduce performance in heterogeneous environments", OSDI 2008 (copy what is expected to
    end last, and only where a device is idle).
    """

    floor_seconds: float = 2.0
    factor: float = 2.0
    deviations: float = 3.0
    same_device_factor: float = 2.0
    enabled: bool = True

    def limit_seconds(self, expected: Prediction) -> float:
        """Return the seconds after which a bundle with this prediction is late."""
        past = expected.seconds + self.deviations * expected.spread_seconds
        return max(self.floor_seconds, self.factor * expected.seconds, past)

    def copy_after_seconds(self, here: Prediction, there: Prediction) -> float:
        """Return how long a bundle must have run before a copy elsewhere is worth while.

        Its device may be known to be slow. The measure of the other device counts if a copy that
        starts there when the bundle is late by that measure would still be done first.
        """
        late_there = self.limit_seconds(there)
        if late_there + there.seconds < here.seconds:
            return late_there
        return self.limit_seconds(here)


class Speculator:
    """Second copies of late bundles.

    Attributes
    ----------
    look_at : float
        Time before which no late bundle is looked for.
    """

    def __init__(self, books: Books, starter: Starter, rules: SpeculationRules) -> None:
        self.look_at = 0.0
        self._books = books
        self._view = books.view
        self._model = books.model
        self._attempts = books.attempts
        self._starter = starter
        self._rules = rules

    @property
    def next_look_seconds(self) -> float | None:
        """Time at which attempts under way are looked at; None while no copy could be made."""
        if not self._attempts or not self._rules.enabled:
            return None
        alone = all(len(pool.executors) < 2 for pool in self._view.pools.values())
        if alone and not self._books.own_processes:
            return None
        return self.look_at

    def speculate(self) -> None:
        """Give each late bundle a second copy on an idle device of its kind, if there is one."""
        now = self._view.now_seconds
        if now < self.look_at or self.next_look_seconds is None:
            return
        rules = self._rules
        longest = self._model.typical_seconds / _LOOKS_PER_BUNDLE
        self.look_at = now + max(rules.floor_seconds / _LOOKS_PER_FLOOR, longest)
        idle = [e for e in self._view.executors.values() if _is_idle(e)]
        if not idle:
            return
        long: list[tuple[Attempt, float]] = []
        sent: dict[Executor, int] = {}
        for attempt in self._attempts.values():
            if attempt.sent_seconds > now - rules.floor_seconds:
                break  # attempts are in the order in which they were sent
            older = sent[attempt.executor] = sent.get(attempt.executor, -1) + 1
            if _may_have_copy(attempt.record):
                ran = self._ran_seconds(attempt, older)
                if ran >= rules.floor_seconds:
                    long.append((attempt, ran))
        for attempt, ran in long:
            self._copy_if_late(attempt, ran, idle)

    def _ran_seconds(self, attempt: Attempt, older: int) -> float:
        """Return for how long an attempt is known to have run. An attempt sent ahead waits at
        first, after ``older`` ones that are on its executor too."""
        now = self._view.now_seconds
        if attempt.begun_seconds is None:
            if older < attempt.executor.slots:
                attempt.begun_seconds = now
            return 0.0
        return now - attempt.begun_seconds

    def _copy_if_late(self, attempt: Attempt, ran: float, idle: Iterable[Executor]) -> None:
        """Start a copy on the idle device that would be done with it first."""
        record, here = attempt.record, attempt.executor
        expected = self._model.predict_bundle(record.bundle, here.kind)
        if expected is None:
            return
        # Only devices of the same kind, so that a copy has the same bits. A process that other
        # bundles share is the executor's: there a copy would be stuck as well.
        fits = [
            e
            for e in idle
            if (e is not here or attempt.process in ("own", "watched"))
            and e.kind == here.kind in record.lane[0]
            and _is_idle(e)
            and e.admits(record.resources, record.lane[1])
        ]
        if not fits:
            return
        there = min(
            fits,
            key=lambda e: (e is here, e.node_id == here.node_id, self._view.slowness(e), e.order),
        )
        slowly = _scaled(expected, self._view.slowness(here))
        quickly = _scaled(expected, self._view.slowness(there))
        if record.graph.sequence:  # planned as a whole: idle devices are kept for something
            after = self._rules.limit_seconds(slowly)
        else:
            after = self._rules.copy_after_seconds(slowly, quickly)
        if there is here:
            after *= self._rules.same_device_factor
        if ran >= after:
            self._copy(attempt, there, ran, expected.seconds * self._view.slowness(there))

    def _copy(self, attempt: Attempt, there: Executor, ran: float, expected: float) -> None:
        record, here = attempt.record, attempt.executor
        resources = record.resources
        if there.kind == "gpu":
            sizes = {key: record.graph.values[key].size_bytes for key in record.bundle.inputs}
            need = working_set_bytes(record.bundle, sizes)
            if fit(need, there) is not Fit.NOW:
                return
            resources = replace(resources, gpu_memory_bytes=need)
        now = self._view.now_seconds
        reason = (
            f"second copy: {ran:.3g} s on {here.device} of node {here.node_id} and not done, "
            f"{expected:.3g} s expected here"
        )
        placement = Placement(
            record.bundle.key, there.node_id, there.device, now, now + expected, reason
        )
        self._starter.start(record, placement, there, resources, copy=True)

    def learn_from_late(self, winner: Attempt, seconds: float) -> None:
        """Note how long the losing copies have taken at least.

        Only this shows that a device is slow if others always finish its bundles first.
        """
        record, now = winner.record, self._view.now_seconds
        if not record.running or len(record.bundle.tasks) > 1:
            return
        for number in range(record.attempts):
            loser = self._attempts.get((record.bundle_id, number))
            if loser is None or loser.begun_seconds is None or loser.cancelled:
                continue
            executor = loser.executor
            ran = now - loser.begun_seconds
            if ran > seconds:
                place = (executor.node_id, executor.device)
                task = record.bundle.tasks[0]
                self._model.observe(task, executor.kind, ran * executor.offer.speed, place)
                self._books.tell_speed(executor)


def _scaled(expected: Prediction, factor: float) -> Prediction:
    return Prediction(expected.seconds * factor, expected.spread_seconds * factor)


def _is_idle(executor: Executor) -> bool:
    """Whether a bundle sent there would begin at once."""
    return (
        executor.healthy
        and not executor.silent
        and executor.in_flight < executor.slots
        and not executor.plan.bundles
    )


def _may_have_copy(record: Record) -> bool:
    """Whether another copy of a bundle under way may be started and would be of use."""
    graph = record.graph
    return (
        record.running == 1
        and not record.done
        and not record.missing
        and not graph.over
        and not graph.finished
        and record.bundle.speculative
        and any(graph.uses.get(k) and k not in graph.values for k in record.bundle.outputs)
    )
