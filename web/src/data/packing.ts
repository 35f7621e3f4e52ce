// Placements laid out for drawing: bundles of a device on as few lines as run at once.

import type { PlacementColumns } from "./types";

export interface Lane {
  node: string;
  device: string;
  /** Numbers of the rows on this line, by their start. */
  rows: number[];
}

export interface Packed {
  lanes: Lane[];
  /** When the work of each row began on its executor. */
  begun: Float64Array;
  end: number;
}

/** Lines by node and device; those of one device next to each other. */
export function pack(columns: PlacementColumns): Packed {
  const total = columns.start.length;
  const begun = new Float64Array(total);
  const groups = new Map<number, number[]>();
  let end = 0;
  for (let row = 0; row < total; row++) {
    begun[row] = Math.max(columns.start[row]!, columns.end[row]! - columns.actual[row]!);
    end = Math.max(end, columns.end[row]!);
    const key = columns.node[row]! * columns.devices.length + columns.device[row]!;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [row]);
    else group.push(row);
  }
  const lanes: Lane[] = [];
  const keys = [...groups.keys()].sort((a, b) => a - b);
  for (const key of keys) {
    const rows = groups.get(key)!.sort((a, b) => begun[a]! - begun[b]!);
    const node = columns.nodes[Math.floor(key / columns.devices.length)]!;
    const device = columns.devices[key % columns.devices.length]!;
    const mine: { lane: Lane; free: number }[] = [];
    for (const row of rows) {
      let place = mine.find((one) => one.free <= begun[row]! + 1e-9);
      if (place === undefined) {
        place = { lane: { node, device, rows: [] }, free: 0 };
        mine.push(place);
        lanes.push(place.lane);
      }
      place.lane.rows.push(row);
      place.free = columns.end[row]!;
    }
  }
  return { lanes, begun, end };
}

/** The first of sorted `rows` whose end is after `time`; ends of one line are sorted too. */
export function firstAfter(rows: number[], ends: number[], time: number): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[rows[middle]!]! > time) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The same in the format that Perfetto and Chrome's about:tracing read. */
export function perfetto(columns: PlacementColumns, packed: Packed): string {
  const events: unknown[] = [];
  const nodes = new Map<string, number>();
  packed.lanes.forEach((lane, thread) => {
    let process = nodes.get(lane.node);
    if (process === undefined) {
      process = nodes.size + 1;
      nodes.set(lane.node, process);
      events.push({ ph: "M", name: "process_name", pid: process, args: { name: lane.node } });
    }
    events.push({ ph: "M", name: "thread_name", pid: process, tid: thread + 1, args: { name: lane.device } });
    for (const row of lane.rows) {
      events.push({
        ph: "X",
        name: columns.names[columns.name[row]!],
        cat: lane.device,
        pid: process,
        tid: thread + 1,
        ts: 1e6 * packed.begun[row]!,
        dur: 1e6 * (columns.end[row]! - packed.begun[row]!),
        args: {
          bundle: bundleName(columns, row),
          reason: columns.reasons[columns.reason[row]!],
          predicted_seconds: columns.predicted[row],
          actual_seconds: columns.actual[row],
          items: columns.items[row],
        },
      });
    }
  });
  return JSON.stringify({ traceEvents: events, displayTimeUnit: "ms" });
}

export function bundleName(columns: PlacementColumns, row: number): string {
  const name = columns.names[columns.name[row]!]!;
  const label = columns.label[row]!;
  return label === "" ? name : `${name}-${label}`;
}
