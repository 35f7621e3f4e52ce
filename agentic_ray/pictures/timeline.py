"""`Timeline`: what ran where and when, as SVG, as a page, and as a trace for Perfetto."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from statistics import median

from agentic_ray.pictures import charts
from agentic_ray.pictures.page import page
from agentic_ray.pictures.saving import save
from agentic_ray.pictures.spans import Span, lanes
from agentic_ray.pictures.trace import chrome_trace
from agentic_ray.pictures.wording import bytes_text, colours, counted, seconds_text

_LEFT = 130.0
_TICKS = 10
_MEMORY_HEIGHT = 60.0


@dataclass(frozen=True)
class Timeline:
    """The times of tasks, and of the bytes that their values took.

    A notebook shows it; `save` writes it to a file.

    Parameters
    ----------
    title : str
    spans : tuple of Span
        Tasks that have ended.
    memory : tuple of tuple
        Seconds, and the bytes of values held from then on; empty where that is not known.

    Examples
    --------
    >>> from agentic_ray.pictures import Span, Timeline
    >>> timeline = Timeline("a run", (Span("t", "f", "n1", "cpu", 0.0, 0.5, 2.0),))
    >>> timeline
    <timeline of a run: 1 task on 1 device in 2 s>
    >>> "<svg" in timeline.svg()
    True
    """

    title: str
    spans: tuple[Span, ...] = field(repr=False)
    memory: tuple[tuple[float, int], ...] = field(default=(), repr=False)

    @property
    def begin_seconds(self) -> float:
        """Time at which the first task was sent."""
        return min((span.sent_seconds for span in self.spans), default=0.0)

    @property
    def length_seconds(self) -> float:
        """Seconds from the first task's being sent to the end of the last."""
        end = max((span.finish_seconds for span in self.spans), default=0.0)
        return end - self.begin_seconds if self.spans else 0.0

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to a file.

        Parameters
        ----------
        path : path
            Ends with ``.html`` (a page that needs no network), ``.svg``, or ``.json`` (a trace
            for Perfetto, https://ui.perfetto.dev, and chrome://tracing).

        Raises
        ------
        InvalidArgumentError
            It ends with something else.
        """
        return save(path, {".html": self.html, ".svg": self.svg, ".json": self.trace})

    def trace(self) -> str:
        """Return the Trace Event Format's JSON: a process a node, a thread a slot."""
        return chrome_trace(self.spans, self.memory, self.begin_seconds)

    def svg(self, most: int = charts.MOST_BARS, *, heading: bool = True) -> str:
        """Return a complete SVG document; a bar's tooltip says what it stands for.

        With more than ``most`` tasks, bars that touch are joined. ``heading``: whether the title
        is above them.
        """
        begin = self.begin_seconds
        return self._drawing(
            lambda span: ("", f"<title>{escape(told(span, begin))}</title>"),
            heading=heading,
            most=most,
        )

    def html(self) -> str:
        """Return a page that needs no network: zoom, and all about the bar under the pointer."""
        begin = self.begin_seconds
        tips: list[str] = []  # of each bar, in the order in which they are drawn

        def tip(span: Span) -> tuple[str, str]:
            tips.append(told(span, begin))
            return f' data-i="{len(tips) - 1}"', ""

        drawing = self._drawing(tip, heading=False)
        return page(
            self.title,
            self._figures(),
            drawing,
            charts.predictions(self.spans, self._colours()),
            tips,
            begin_to_end=self.length_seconds,
        )

    def _repr_html_(self) -> str:
        return self.svg(charts.FEW_BARS)

    def __repr__(self) -> str:
        devices = len({(span.node_id, span.device) for span in self.spans})
        return (
            f"<timeline of {self.title}: {counted(len(self.spans), 'task')} on "
            f"{counted(devices, 'device')} in {seconds_text(self.length_seconds)}>"
        )

    def _colours(self) -> dict[str, str]:
        return colours(list(Counter(span.codelet for span in self.spans)))

    def _figures(self) -> dict[str, str]:
        spans = self.spans
        rows = lanes(spans)
        busy = sum(span.seconds for span in spans)
        length = self.length_seconds
        found = {
            "time": seconds_text(length),
            "tasks": f"{len(spans):,}",
            "devices": f"{len({(row.node_id, row.device) for row in rows}):,}",
            "nodes": f"{len({row.node_id for row in rows}):,}",
            "busy": f"{seconds_text(busy)} in {counted(len(rows), 'lane')}"
            + (f", {busy / (length * len(rows)):.0%}" if length else ""),
        }
        factors = [
            max(span.predicted_seconds / span.seconds, span.seconds / span.predicted_seconds)
            for span in spans
            if span.predicted_seconds is not None
            and span.predicted_seconds > 0
            and span.seconds > 0
        ]
        if factors:
            found["predictions off by"] = f"a factor of {median(factors):.3g} (median)"
        moved = [span.moved_bytes for span in spans if span.moved_bytes is not None]
        if moved:
            found["moved between nodes"] = bytes_text(sum(moved))
        if self.memory:
            found["values held"] = charts.peak_text(self.memory)
        retried = sum(span.retried for span in spans)
        if retried:
            found["run again"] = f"{retried:,}"
        return found

    def _drawing(
        self, tip: charts.Tip, *, heading: bool = True, most: int = charts.MOST_BARS
    ) -> str:
        rows = lanes(self.spans)
        colour_of = self._colours()
        counts = Counter(span.codelet for span in self.spans)
        begin, length = self.begin_seconds, self.length_seconds
        row_height = max(3.0, min(16.0, 600.0 / max(1, len(rows))))
        top = 40.0 if heading else 18.0
        height = max(row_height * len(rows), 8.0)
        memory = charts.memory_curve(self.memory, begin, length)
        below = top + height + 18
        whole = below + (_MEMORY_HEIGHT + 10 if memory else 0)
        width = charts.WIDTH
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + width + 20:.0f} '
            f'{whole:.0f}" width="100%" style="max-width:{1.4 * (_LEFT + width + 20):.0f}px" '
            'font-family="sans-serif" font-size="10" fill="currentColor" role="img" '
            f'aria-label="{escape(repr(self)[1:-1], quote=True)}" class="timeline">',
        ]
        if heading:
            parts.append(f'<text x="4" y="14" font-size="13">{escape(self.title)}</text>')
        parts += charts.legend(colour_of, counts, top - 18)
        parts += charts.labels(rows, row_height, top, 22)
        parts += [
            f'<svg class="field" x="{_LEFT}" y="{top}" width="{width}" height="{height:.1f}" '
            f'viewBox="0 0 {width} {height:.1f}" preserveAspectRatio="none">',
            f'<rect width="{width}" height="{height:.1f}" fill="currentColor" '
            'fill-opacity="0.05"/>',
            *charts.bars(rows, begin, length, row_height, colour_of, tip, most),
            "</svg>",
        ]
        for i in range(_TICKS + 1):
            x = _LEFT + width * i / _TICKS
            parts.append(
                f'<text class="tick" x="{x:.0f}" y="{top + height + 12:.1f}" '
                f'text-anchor="middle">{seconds_text(length * i / _TICKS)}</text>'
            )
        if memory:
            parts += [
                f'<text x="4" y="{below + 12:.1f}">values held</text>',
                f'<text x="4" y="{below + 26:.1f}">{charts.peak_text(self.memory)}</text>',
                f'<svg class="field" x="{_LEFT}" y="{below:.1f}" width="{width}" '
                f'height="{_MEMORY_HEIGHT}" viewBox="0 0 {width} 100" preserveAspectRatio="none">'
                f'<path d="{memory}" fill="#4477aa" fill-opacity="0.35" stroke="#4477aa" '
                'vector-effect="non-scaling-stroke"/></svg>',
            ]
        return "\n".join([*parts, "</svg>", ""])


def told(span: Span, begin: float) -> str:
    """Tell all about a span, one fact a line."""
    lines = [span.task, f"{span.device} of {span.node_id}"]
    lines.append(
        f"{seconds_text(span.start_seconds - begin)} to {seconds_text(span.finish_seconds - begin)}"
    )
    predicted = span.predicted_seconds
    expected = "" if predicted is None else f", predicted {seconds_text(predicted)}"
    lines.append(f"took {seconds_text(span.seconds)}{expected}")
    waited = span.start_seconds - span.sent_seconds
    if waited > 0:
        lines.append(f"sent {seconds_text(waited)} before it began")
    if span.made_bytes is not None:
        lines.append(f"made {bytes_text(span.made_bytes)}")
    if span.moved_bytes:
        lines.append(f"took {bytes_text(span.moved_bytes)} from other nodes")
    if span.retried:
        lines.append("run again after a loss")
    if span.note:
        lines.append(span.note)
    return "\n".join(lines)
