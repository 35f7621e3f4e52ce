"""Jobs as the page and the events show them: small, as JSON types. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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

    def lets(self, record: JobRecord) -> bool:
        """Whether a job is wanted, its state aside."""
        if self.workload and record.workload != self.workload:
            return False
        if self.user and record.user != self.user:
            return False
        return not self.text or self._has_text(record)

    def _has_text(self, record: JobRecord) -> bool:
        wanted = self.text.casefold()
        texts = [record.id, record.workload, record.user]
        if record.error is not None:
            texts.append(record.error.line)
        return any(wanted in text.casefold() for text in texts)


def listing(
    newest_first: Iterable[JobRecord], wanted: Filter, sees: Sees, offset: int, limit: int
) -> dict[str, Any]:
    """One page of the jobs that somebody may see and wants.

    Returns
    -------
    dict
        ``jobs``, the rows; ``total``, how many there are on all pages; ``counts`` by state of those
        that the rest of the filter lets through; ``workloads`` and ``users`` to choose from.
    """
    visible = [record for record in newest_first if sees(record.user)]
    found = [record for record in visible if wanted.lets(record)]
    counts = Counter(record.state for record in found)
    if wanted.states:
        found = [record for record in found if record.state in wanted.states]
    return {
        "jobs": [row(record) for record in found[offset : offset + limit]],
        "total": len(found),
        "counts": {state.value: counts[state] for state in JobState},
        "workloads": _names(record.workload for record in visible),
        "users": _names(record.user for record in visible),
    }


def _names(names: Iterable[str]) -> Sequence[str]:
    return sorted(set(names))[:_MOST_NAMES]
