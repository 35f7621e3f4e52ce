"""Jobs as the page and the events show them: small, as JSON types. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from agentic_ray.master import JobRecord, JobState
from agentic_ray.shown import cut_line

Sees = Callable[[str], bool]
"""Whether somebody may see what belongs to this user."""

MOST_ROWS: Final = 500
_MOST_NAMES: Final = 200


def row(record: JobRecord) -> dict[str, Any]:
    """A job in one row: all but params and result, its error in one line."""
    shown = record.to_dict(with_result=False)
    if record.error is not None:
        shown["error"] = {"type": record.error.type, "message": cut_line(record.error.message)}
    shown["sequence"] = record.sequence
    shown["deaths"] = record.deaths
    return shown


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are wanted. What is empty lets all through.

    Parameters
    ----------
    states : frozenset of JobState
    workload, user : str
        Exactly this one.
    text : str
        In the identifier, the workload's name, the user or the error.
    """

    states: frozenset[JobState] = frozenset()
    workload: str = ""
    user: str = ""
    text: str = ""

    def lets(self, user: str, workload: str) -> bool:
        """Whether jobs of this user and workload are wanted, their states and texts aside."""
        return self.workload in ("", workload) and self.user in ("", user)

    def has_text(self, record: JobRecord) -> bool:
        """Whether a job has the wanted text."""
        wanted = self.text.casefold()
        texts = [record.id, record.workload, record.user]
        if record.error is not None:
            texts.append(record.error.line)
        return any(wanted in text.casefold() for text in texts)


class Snapshot:
    """All jobs at one moment, newest first, and how many there are of each kind.

    Parameters
    ----------
    records : list of JobRecord
    position : str
        The number of the last event that they are after.
    """

    def __init__(self, records: list[JobRecord], position: str) -> None:
        self.records = records
        self.position = position
        self.groups = Counter((record.user, record.workload, record.state) for record in records)


def listing(jobs: Snapshot, wanted: Filter, sees: Sees, offset: int, limit: int) -> dict[str, Any]:
    """Return a page of the jobs that somebody may see and wants.

    All jobs are gone through only where a text is looked for: a page is asked for often.

    Returns
    -------
    dict
        ``jobs``, the rows; ``total``, how many there are on all pages; ``counts`` by state of those
        that the rest of the filter lets through; ``workloads`` and ``users`` to choose from; and
        ``position``, of the snapshot.
    """
    visible = {group: many for group, many in jobs.groups.items() if sees(group[0])}
    pairs = {group[:2] for group in visible if wanted.lets(*group[:2])}
    found: Iterator[JobRecord] = (
        record for record in jobs.records if (record.user, record.workload) in pairs
    )
    counts: Counter[JobState] = Counter()
    if wanted.text:
        with_text = [record for record in found if wanted.has_text(record)]
        counts.update(record.state for record in with_text)
        found = iter(with_text)
    else:
        for (user, workload, state), many in visible.items():
            if (user, workload) in pairs:
                counts[state] += many
    chosen = wanted.states or frozenset(JobState)
    if wanted.states:
        found = (record for record in found if record.state in chosen)
    return {
        "jobs": [row(record) for record in islice(found, offset, offset + limit)],
        "total": sum(counts[state] for state in chosen),
        "counts": {state.value: counts[state] for state in JobState},
        "workloads": _names(workload for _, workload, _ in visible),
        "users": _names(user for user, _, _ in visible),
        "position": jobs.position,
    }


def _names(names: Iterable[str]) -> Sequence[str]:
    return sorted(set(names))[:_MOST_NAMES]
