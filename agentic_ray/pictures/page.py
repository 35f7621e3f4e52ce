"""The page around a timeline: figures, zoom and tooltips. Everything is in the one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.2em; max-width: 1500px; }
h1 { font-size: 1.3em; margin: 0 0 .6em; overflow-wrap: anywhere; }
h2 { font-size: 1.05em; margin: 1.4em 0 .3em; }
dl { display: flex; flex-wrap: wrap; gap: .3em 2em; margin: 0 0 1em; }
dt { font-size: .8em; opacity: .7; } dd { margin: 0; font-weight: 600; }
.hint { opacity: .7; font-size: .85em; margin: .2em 0; }
svg.timeline { display: block; touch-action: pan-y; }
svg.timeline .field { cursor: grab; }
#tip { position: fixed; display: none; pointer-events: none; white-space: pre-line; z-index: 1;
  max-width: 34em; background: Canvas; color: CanvasText; border: 1px solid GrayText;
  border-radius: 4px; padding: .4em .6em; font-size: .85em; box-shadow: 0 2px 8px #0004;
  overflow-wrap: anywhere; }
rect[data-i]:hover { stroke: CanvasText; stroke-width: 1; vector-effect: non-scaling-stroke; }
button { font: inherit; }
"""

_SCRIPT = """
"use strict";
const {tips, seconds} = JSON.parse(document.getElementById("data").textContent);
const drawing = document.querySelector("svg.timeline");
const fields = [...drawing.querySelectorAll("svg.field")];
const ticks = [...drawing.querySelectorAll("text.tick")];
const tip = document.getElementById("tip");
const whole = fields[0].viewBox.baseVal.width;
let from = 0, width = whole;

function text(s) {
  if (s === 0) return "0 s";
  const short = (x) => String(Number(x.toPrecision(4)));
  if (s < 0.9995e-3) return short(s * 1e6) + " µs";
  return s < 0.9995 ? short(s * 1e3) + " ms" : short(s) + " s";
}
function show(newFrom, newWidth) {
  width = Math.max(whole * 1e-6, Math.min(whole, newWidth));
  from = Math.max(0, Math.min(whole - width, newFrom));
  for (const field of fields) {
    const box = field.viewBox.baseVal;
    box.x = from;
    box.width = width;
  }
  ticks.forEach((tick, i) => {
    tick.textContent = text(seconds * (from + width * i / (ticks.length - 1)) / whole);
  });
}
function place(event) {  // 0 at the left end of the field, 1 at its right end
  const box = fields[0].getBoundingClientRect();
  return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
}
function zoom(factor, at) {
  const wanted = Math.max(whole * 1e-6, Math.min(whole, width * factor));
  show(from + at * (width - wanted), wanted);
}
drawing.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoom(Math.exp(event.deltaY / 300), place(event));
}, {passive: false});
let held = null;
for (const field of fields) {
  field.addEventListener("pointerdown", (event) => {
    held = {x: event.clientX, from};
    field.setPointerCapture(event.pointerId);
  });
  field.addEventListener("pointermove", (event) => {
    if (held === null) return;
    const box = fields[0].getBoundingClientRect();
    show(held.from - (event.clientX - held.x) / box.width * width, width);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    field.addEventListener(end, () => { held = null; });
  }
}
drawing.addEventListener("mousemove", (event) => {
  const number = event.target.dataset ? event.target.dataset.i : undefined;
  if (number === undefined || held !== null) { tip.style.display = "none"; return; }
  tip.textContent = tips[Number(number)];
  tip.style.display = "block";
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8)) + "px";
  const below = event.clientY + 16;
  const above = event.clientY - box.height - 10;
  tip.style.top = (below + box.height < innerHeight ? below : above) + "px";
});
drawing.addEventListener("mouseleave", () => { tip.style.display = "none"; });
const actions = {
  in: () => zoom(0.5, 0.5), out: () => zoom(2, 0.5), all: () => show(0, whole),
  left: () => show(from - width / 2, width), right: () => show(from + width / 2, width),
};
for (const [name, act] of Object.entries(actions)) {
  document.getElementById(name).addEventListener("click", act);
}
"""

_BUTTONS = "".join(
    f'<button type="button" id="{name}">{text}</button> '
    for name, text in (
        ("in", "zoom in"),
        ("out", "zoom out"),
        ("left", "earlier"),
        ("right", "later"),
        ("all", "all"),
    )
)


def page(
    title: str,
    figures: Mapping[str, str],
    drawing: str,
    predictions: str,
    tips: Sequence[str],
    *,
    begin_to_end: float,
) -> str:
    """Return the page.

    Parameters
    ----------
    figures : mapping of str to str
        Numbers above the drawing, by their names.
    drawing, predictions : str
        SVG; the second may be empty.
    tips : sequence of str
        Texts for the bars; a bar's ``data-i`` is the number of its text.
    begin_to_end : float
        Seconds from the left end of the drawing to its right end.
    """
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>"
        for name, text in figures.items()
    )
    data = json.dumps({"tips": list(tips), "seconds": begin_to_end}).replace("<", "\\u003c")
    dots = f"<h2>Predicted against actual</h2>{predictions}" if predictions else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<dl>{shown}</dl>
<p>{_BUTTONS}<span class="hint">Ctrl + wheel zooms, dragging moves.</span></p>
{drawing}
{dots}
<div id="tip" role="status"></div>
<script type="application/json" id="data">{data}</script>
<script>{_SCRIPT}</script>
</body>
</html>
"""
