// When bundles ran, by node and device. Drawn on a canvas: there may be ten thousands.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { count, seconds, shortName } from "../data/numbers";
import { bundleName, firstAfter, pack, type Packed } from "../data/packing";
import type { PlacementColumns } from "../data/types";
import { useWords } from "../words";
import { Facts } from "./fields";
import { color, onTheme, seriesColor } from "./theme";

const LABEL = 132;
const AXIS = 24;
const LEAST_SPAN = 1e-5;

interface Window {
  from: number;
  to: number;
}

interface Geometry {
  width: number;
  left: number;
  row: number;
  height: number;
}

export function Gantt(props: { placements: PlacementColumns; until?: number }) {
  const words = useWords();
  const { placements } = props;
  const packed = useMemo(() => pack(placements), [placements]);
  const end = Math.max(props.until ?? 0, packed.end, LEAST_SPAN);
  const [window_, setWindow] = useState<Window | null>(null);
  const [chosen, setChosen] = useState<number | null>(null);
  const [width, setWidth] = useState(600);
  const canvas = useRef<HTMLCanvasElement>(null);
  const shown = window_ ?? { from: 0, to: end };
  const geometry: Geometry = {
    width,
    left: width < 500 ? 74 : LABEL,
    row: Math.max(3, Math.min(20, Math.floor(440 / Math.max(1, packed.lanes.length)))),
    height: 0,
  };
  geometry.height = Math.min(8000, AXIS + geometry.row * packed.lanes.length + 4);

  useEffect(() => {
    const place = canvas.current!.parentElement!;
    const watch = new ResizeObserver(() => setWidth(Math.max(200, place.clientWidth)));
    watch.observe(place);
    return () => watch.disconnect();
  }, []);

  const paint = (): void => draw(canvas.current!, placements, packed, shown, geometry, chosen, words.gantt.caller);
  const painting = useRef(paint);
  painting.current = paint;
  useEffect(() => {
    const frame = requestAnimationFrame(() => painting.current());
    return () => cancelAnimationFrame(frame);
  });
  useEffect(() => onTheme(() => painting.current()), []);

  const zoom = (factor: number, at = 0.5): void => {
    const span = Math.max(LEAST_SPAN, Math.min(end, (shown.to - shown.from) * factor));
    const middle = shown.from + at * (shown.to - shown.from);
    move(middle - at * span, span);
  };
  const move = (from: number, span = shown.to - shown.from): void => {
    if (span >= end) {
      setWindow(null);
      return;
    }
    from = Math.max(0, Math.min(end - span, from));
    setWindow({ from, to: from + span });
  };

  const moving = useRef({ zoom, move, shown, geometry });
  moving.current = { zoom, move, shown, geometry };
  useEffect(() => {
    const target = canvas.current!;
    const wheel = (event: WheelEvent): void => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const { left, width: all } = moving.current.geometry;
      const at = (event.offsetX - left) / (all - left);
      moving.current.zoom(Math.exp(event.deltaY / 300), Math.min(1, Math.max(0, at)));
    };
    // (Preact's listeners may be passive, and could not keep the page from being zoomed.)
    target.addEventListener("wheel", wheel, { passive: false });
    return () => target.removeEventListener("wheel", wheel);
  }, []);

  const drag = useRef<{ x: number; from: number; moved: boolean } | null>(null);
  const down = (event: PointerEvent): void => {
    canvas.current!.setPointerCapture(event.pointerId);
    drag.current = { x: event.clientX, from: shown.from, moved: false };
  };
  const pull = (event: PointerEvent): void => {
    const began = drag.current;
    if (began === null) return;
    const moved = event.clientX - began.x;
    if (Math.abs(moved) > 3) began.moved = true;
    if (began.moved) move(began.from - (moved / (width - geometry.left)) * (shown.to - shown.from));
  };
  const up = (event: PointerEvent): void => {
    const began = drag.current;
    drag.current = null;
    if (began !== null && !began.moved) {
      setChosen(rowAt(event.offsetX, event.offsetY, placements, packed, shown, geometry));
    }
  };

  const span = shown.to - shown.from;
  return (
    <div class="gantt">
      <div class="row tight">
        <button type="button" class="small" onClick={() => zoom(0.5)}>
          {words.gantt.in}
        </button>
        <button type="button" class="small" disabled={window_ === null} onClick={() => zoom(2)}>
          {words.gantt.out}
        </button>
        <button type="button" class="small" disabled={window_ === null} onClick={() => move(shown.from - span / 2)}>
          {words.gantt.left}
        </button>
        <button type="button" class="small" disabled={window_ === null} onClick={() => move(shown.from + span / 2)}>
          {words.gantt.right}
        </button>
        <button type="button" class="small" disabled={window_ === null} onClick={() => setWindow(null)}>
          {words.gantt.all}
        </button>
        <span class="hint">{words.gantt.help}</span>
      </div>
      <div class="canvas">
        <canvas
          ref={canvas}
          role="img"
          aria-label={words.gantt.label(count(placements.start.length), count(packed.lanes.length))}
          onPointerDown={down}
          onPointerMove={pull}
          onPointerUp={up}
        />
      </div>
      {placements.dropped > 0 && <p class="hint">{words.gantt.dropped(count(placements.dropped))}</p>}
      <ul class="legend">
        {placements.names.slice(0, 16).map((name, number) => (
          <li key={name}>
            <Swatch number={number} /> {shortName(name)}
          </li>
        ))}
        <li>
          <span class="swatch pending" aria-hidden="true" /> {words.gantt.pending}
        </li>
        {placements.retried.length > 0 && (
          <li>
            <span class="swatch retried" aria-hidden="true" /> {words.gantt.retried}
          </li>
        )}
      </ul>
      <div aria-live="polite">{chosen !== null && chosen < placements.start.length && <Chosen placements={placements} row={chosen} />}</div>
    </div>
  );
}

function Swatch(props: { number: number }) {
  const mark = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    const set = (): void => {
      mark.current!.style.background = seriesColor(props.number);
    };
    set();
    return onTheme(set);
  }, [props.number]);
  return <span class="swatch" ref={mark} aria-hidden="true" />;
}

function Chosen(props: { placements: PlacementColumns; row: number }) {
  const words = useWords();
  const { placements: columns, row } = props;
  return (
    <div class="chosen">
      <Facts
        facts={[
          [words.placements.bundle, <code>{bundleName(columns, row)}</code>],
          [words.placements.device, `${columns.nodes[columns.node[row]!]!.slice(0, 8)} · ${columns.devices[columns.device[row]!]}`],
          [words.placements.start, seconds(columns.start[row]!)],
          [words.placements.actual, seconds(columns.actual[row]!)],
          [words.placements.predicted, seconds(columns.predicted[row]!)],
          [words.placements.reason, columns.reasons[columns.reason[row]!]],
        ]}
      />
    </div>
  );
}

function draw(
  canvas: HTMLCanvasElement,
  columns: PlacementColumns,
  packed: Packed,
  shown: Window,
  geometry: Geometry,
  chosen: number | null,
  caller: string,
): void {
  const { width, left, row: rowHeight, height } = geometry;
  const scale = devicePixelRatio || 1;
  const pixels = { width: Math.round(width * scale), height: Math.round(height * scale) };
  if (canvas.width !== pixels.width) canvas.width = pixels.width;
  if (canvas.height !== pixels.height) canvas.height = pixels.height;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d")!;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  const unit = (width - left) / (shown.to - shown.from);
  const x = (time: number): number => left + (time - shown.from) * unit;

  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  drawAxis(context, shown, x, geometry);

  const colors = columns.names.map((_, number) => seriesColor(number));
  const faint = color("pending");
  const retried = new Set(columns.retried);
  const warning = color("failed");
  let before = "";
  packed.lanes.forEach((lane, number) => {
    const y = AXIS + number * rowHeight;
    const place = `${lane.node} ${lane.device}`;
    if (place !== before) {
      before = place;
      context.strokeStyle = color("grid");
      context.beginPath();
      context.moveTo(0, y + 0.5);
      context.lineTo(width, y + 0.5);
      context.stroke();
      const node = lane.node === "caller" ? caller : lane.node.slice(0, 8);
      context.fillStyle = color("muted");
      const text = `${node} ${lane.device.slice(0, 12)}`;
      context.fillText(left < LABEL ? text.slice(0, 11) : text, 4, y + Math.max(rowHeight, 12) / 2 + 1);
    }
    const gap = rowHeight > 6 ? 2 : rowHeight > 3 ? 1 : 0;
    const thick = rowHeight - gap;
    const rows = lane.rows;
    let drawnTo = -Infinity; // what is narrower than a pixel and falls on one is drawn once
    for (let at = firstAfter(rows, columns.end, shown.from); at < rows.length; at++) {
      const row = rows[at]!;
      const began = packed.begun[row]!;
      if (columns.start[row]! > shown.to && began > shown.to) break;
      const right = x(columns.end[row]!);
      const isChosen = row === chosen;
      if (right < drawnTo + 0.5 && !isChosen) continue;
      const begin = Math.max(left, x(began));
      const sent = Math.max(left, x(columns.start[row]!), drawnTo);
      if (begin - sent > 0.5) {
        context.fillStyle = faint;
        context.fillRect(sent, y + gap / 2 + thick / 3, begin - sent, thick / 3);
      }
      context.fillStyle = colors[columns.name[row]!]!;
      context.fillRect(begin, y + gap / 2, Math.max(0.75, right - begin - (right - begin > 3 ? 0.75 : 0)), thick);
      if (retried.has(row)) {
        context.fillStyle = warning;
        context.fillRect(begin, y + gap / 2, Math.max(1, right - begin), Math.max(1, thick / 5));
      }
      if (isChosen) {
        context.strokeStyle = color("text");
        context.lineWidth = 2;
        context.strokeRect(begin - 1, y, Math.max(3, right - begin + 1), rowHeight);
        context.lineWidth = 1;
      }
      drawnTo = Math.max(drawnTo, right);
    }
  });
}

function drawAxis(context: CanvasRenderingContext2D, shown: Window, x: (time: number) => number, geometry: Geometry): void {
  const span = shown.to - shown.from;
  const wanted = span / Math.max(2, (geometry.width - geometry.left) / 90);
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = [1, 2, 5, 10].map((times) => times * power).find((one) => one >= wanted)!;
  context.textAlign = "center";
  for (let mark = Math.ceil(shown.from / step) * step; mark <= shown.to; mark += step) {
    const at = Math.round(x(mark)) + 0.5;
    context.strokeStyle = color("grid");
    context.beginPath();
    context.moveTo(at, AXIS - 4);
    context.lineTo(at, geometry.height);
    context.stroke();
    if (at < geometry.width - 16) {
      context.fillStyle = color("faint");
      context.fillText(seconds(Math.abs(mark) < step / 1e6 ? 0 : Number(mark.toPrecision(6))), Math.max(at, geometry.left + 14), 10);
    }
  }
  context.textAlign = "left";
}

function rowAt(
  atX: number,
  atY: number,
  columns: PlacementColumns,
  packed: Packed,
  shown: Window,
  geometry: Geometry,
): number | null {
  const lane = packed.lanes[Math.floor((atY - AXIS) / geometry.row)];
  if (lane === undefined || atX < geometry.left) return null;
  const unit = (geometry.width - geometry.left) / (shown.to - shown.from);
  const time = shown.from + (atX - geometry.left) / unit;
  const slack = 3 / unit;
  const row = lane.rows[firstAfter(lane.rows, columns.end, time - slack)];
  return row !== undefined && columns.start[row]! <= time + slack ? row : null;
}
