"""A drawing of a run in SVG: one row a device, one bar a task. Text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from agentic_ray.schedule.simulate import SimulationResult, Span

_ROW = 14
_WIDTH = 1200
_LEFT = 130
_TOP = 42
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Colours of Paul Tol's bright scheme, which colour-blind readers can tell apart."""
_MOST_BARS = 20_000
"""With more bars, those of one codelet that touch become one, so that a browser can show them."""


def gantt_svg(result: SimulationResult) -> str:
    """Draw the device and the time of every task of a simulated run.

    Returns
    -------
    str
        A complete SVG document; a bar's tooltip names task, device and times in seconds.
    """
    title = (
        f"{result.workload}, {result.policy}: {result.makespan_seconds:.4g} s, "
        f"lower bound {result.lower_bound_seconds:.4g} s"
    )
    return timeline_svg(title, result.timeline)


def timeline_svg(title: str, timeline: Sequence[Span]) -> str:
    """Draw bars over time, from the first that was sent; one row a device.

    Returns
    -------
    str
        The SVG document, as of `gantt_svg`.
    """
    rows: dict[tuple[str, str], list[Span]] = {}
    for span in timeline:
        rows.setdefault((span.node_id, span.device), []).append(span)
    codelets = list(dict.fromkeys(span.codelet for span in timeline))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(codelets)}
    height = _TOP + _ROW * len(rows) + 30
    begin = min((span.sent_seconds for span in timeline), default=0.0)
    length = max((span.finish_seconds for span in timeline), default=0.0) - begin
    scale = _WIDTH / length if length else 0.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 20}" height="{height}" '
        'font-family="sans-serif" font-size="10">',
        f'<text x="4" y="14" font-size="13">{escape(title)}</text>',
    ]
    for i, name in enumerate(codelets):
        x = _LEFT + 110 * i
        parts.append(f'<rect x="{x}" y="22" width="10" height="10" fill="{colours[name]}"/>')
        parts.append(f'<text x="{x + 14}" y="31">{escape(name)}</text>')
    for i, ((node_id, device), spans) in enumerate(sorted(rows.items(), key=_row_order)):
        y = _TOP + _ROW * i
        label = f"{node_id} {'cpu' if device == 'cpu' else 'gpu'}"
        parts.append(f'<text x="4" y="{y + 10}">{escape(label[:22])}</text>')
        bars = spans if len(timeline) <= _MOST_BARS or not scale else _joined(spans, 1 / scale)
        for span in bars:
            left = _LEFT + (span.start_seconds - begin) * scale
            width = max((span.finish_seconds - span.start_seconds) * scale, 0.2)
            tip = (
                f"{span.task} on {device}: {span.start_seconds - begin:.4g} to "
                f"{span.finish_seconds - begin:.4g} s"
            )
            parts.append(
                f'<rect x="{left:.2f}" y="{y}" width="{width:.2f}" height="{_ROW - 3}" '
                f'fill="{colours[span.codelet]}"><title>{escape(tip)}</title></rect>'
            )
    y = _TOP + _ROW * len(rows) + 14
    for i in range(11):
        seconds = length * i / 10
        parts.append(f'<text x="{_LEFT + _WIDTH * i / 10:.0f}" y="{y}">{seconds:.3g} s</text>')
    return "\n".join([*parts, "</svg>", ""])


def _row_order(row: tuple[tuple[str, str], list[Span]]) -> tuple[int, str, str]:
    (node_id, device), _ = row
    return len(node_id), node_id, device


def _joined(spans: list[Span], gap_seconds: float) -> list[Span]:
    """Join bars of one codelet with less than ``gap_seconds`` between them."""
    joined: list[Span] = []
    for span in spans:
        last = joined[-1] if joined else None
        if (
            last is None
            or last.codelet != span.codelet
            or span.start_seconds - last.finish_seconds > gap_seconds
        ):
            joined.append(span)
            continue
        joined[-1] = Span(
            last.task if last.task.endswith("…") else f"{last.task} …",
            span.codelet,
            span.node_id,
            span.device,
            last.sent_seconds,
            last.start_seconds,
            span.finish_seconds,
        )
    return joined
