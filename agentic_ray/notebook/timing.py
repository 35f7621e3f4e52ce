"""`CellTime`: the time of a cell, and what it put on the cluster. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from agentic_ray.pictures import Span, Timeline
from agentic_ray.pictures.charts import FEW_BARS, place_text
from agentic_ray.pictures.wording import bytes_text, counted, seconds_text

_HEADER = ("device", "bundles", "took", "predicted", "made", "moved here")


@dataclass(frozen=True, slots=True)
class DeviceTime:
    """Work of one device.

    Parameters
    ----------
    seconds : float
        Seconds that its tasks took, added up.
    predicted_seconds : float
        Prediction for the ``predicted`` tasks of which there was one.
    """

    node_id: str
    device: str
    tasks: int
    seconds: float
    predicted: int
    predicted_seconds: float
    made_bytes: int
    moved_bytes: int


def device_times(spans: Sequence[Span]) -> list[DeviceTime]:
    """Add the spans of each device up, in the order in which the devices came to work."""
    groups: dict[tuple[str, str], list[Span]] = {}
    for span in spans:
        groups.setdefault((span.node_id, span.device), []).append(span)
    found = []
    for place, group in groups.items():
        known = [s.predicted_seconds for s in group if s.predicted_seconds is not None]
        found.append(
            DeviceTime(
                *(*place, len(group), sum(span.seconds for span in group)),
                *(len(known), sum(known)),
                sum(span.made_bytes or 0 for span in group),
                sum(span.moved_bytes or 0 for span in group),
            )
        )
    return found


@dataclass(frozen=True)
class CellTime:
    """The time of a cell. Its ``repr`` is a table; a notebook adds the timeline.

    Parameters
    ----------
    wall_seconds : float
    graphs : int
        Task graphs that were submitted to the session.
    spans : tuple of Span
        Bundles of tasks that ended, and what ran in this process instead.
    memory : tuple of tuple
        Seconds, and the bytes of values held from then on.
    jobs : int
        Jobs that were given to a master.
    """

    wall_seconds: float
    graphs: int
    spans: tuple[Span, ...] = field(repr=False)
    memory: tuple[tuple[float, int], ...] = field(default=(), repr=False)
    jobs: int = 0

    def timeline(self) -> Timeline:
        """Return the picture of where and when the work of the cell ran."""
        return Timeline(f"cell, {seconds_text(self.wall_seconds)}", self.spans, self.memory)

    def _head(self) -> str:
        wall = f"wall time {seconds_text(self.wall_seconds)}"
        if not self.spans:
            return f"{wall}; nothing ran on the cluster, nor in threads for arrays"
        parts = ((self.graphs, "graph"), (self.jobs, "job"))
        of = " and ".join(counted(number, noun) for number, noun in parts if number)
        return f"{wall}; {counted(len(self.spans), 'bundle')}{of and f' of {of}'}"

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                place_text(one.node_id, one.device, 22),
                f"{one.tasks:,}",
                seconds_text(one.seconds),
                _predicted(one),
                bytes_text(one.made_bytes),
                bytes_text(one.moved_bytes),
            )
            for one in device_times(self.spans)
        ]

    def __repr__(self) -> str:
        rows = [_HEADER, *self._rows()] if self.spans else []
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))] if rows else []
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([self._head(), *lines])

    def _repr_html_(self) -> str:
        if not self.spans:
            return escape(self._head())
        head = "".join(f"<th>{cell}</th>" for cell in _HEADER)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        return (
            f"<div>{escape(self._head())}<table><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table><div style='max-width:900px'>"
            f"{self.timeline().svg(FEW_BARS, heading=False)}</div></div>"
        )


def _predicted(one: DeviceTime) -> str:
    if not one.predicted:
        return "?"
    some = "" if one.predicted == one.tasks else f" for {one.predicted:,}"
    return f"{seconds_text(one.predicted_seconds)}{some}"
