// What the service tells without being asked: one stream for the whole page.

import { useEffect, useReducer } from "preact/hooks";
import { follow } from "./events";
import type { ClusterNews, Row, Sample } from "./types";

type Topic = "line" | "job" | "progress" | "cluster" | "missed";

const MOST_SAMPLES = 450;

class Live {
  connected: boolean | null = null;
  /** The number of the newest event. */
  position = "";
  progress = new Map<string, [done: number, total: number]>();
  cluster: ClusterNews | null = null;
  samples: Sample[] = [];
  private skew = 0;
  private listeners = new Map<Topic, Set<(row?: Row) => void>>();
  private end: (() => void) | null = null;

  /** Seconds since the epoch by the service's clock. */
  now(): number {
    return Date.now() / 1000 + this.skew;
  }

  start(): void {
    this.stop();
    this.end = follow(
      "/events?kinds=job,progress,cluster",
      (kind, data, id) => this.hear(kind, data, id),
      (is) => {
        this.connected = is;
        this.tell("line");
      },
    );
  }

  stop(): void {
    this.end?.();
    this.end = null;
  }

  listen(topic: Topic, listener: (row?: Row) => void): () => void {
    const listeners = this.listeners.get(topic) ?? new Set();
    this.listeners.set(topic, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /** What was sampled before this page was opened. */
  seed(samples: Sample[], news: ClusterNews): void {
    const newest = this.samples[0]?.time ?? Infinity;
    this.samples = [...samples.filter((one) => one.time < newest), ...this.samples].slice(-MOST_SAMPLES);
    this.cluster ??= news;
    this.tell("cluster");
  }

  private tell(topic: Topic, row?: Row): void {
    for (const listener of this.listeners.get(topic) ?? []) listener(row);
  }

  private hear(kind: string, data: unknown, id: string | null): void {
    if (id !== null) this.position = id;
    if (kind === "job") {
      const row = data as Row;
      if (row.state !== "running") this.progress.delete(row.task_id);
      this.tell("job", row);
    } else if (kind === "progress") {
      this.progress = new Map(Object.entries(data as Record<string, [number, number]>));
      this.tell("progress");
    } else if (kind === "cluster") {
      this.cluster = data as ClusterNews;
      if (this.cluster.sample !== null) this.samples = [...this.samples, this.cluster.sample].slice(-MOST_SAMPLES);
      this.tell("cluster");
    } else if (kind === "hello" || kind === "reset") {
      this.skew = (data as { time: number }).time - Date.now() / 1000;
      if (kind === "reset") this.tell("missed");
    }
  }
}

export const live = new Live();

/** Draw the component anew whenever there is news of these topics. */
export function useNews(...topics: Topic[]): void {
  const [, again] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    const ends = topics.map((topic) => live.listen(topic, () => again(undefined)));
    return () => ends.forEach((end) => end());
  }, [topics.join()]);
}

/** The time, every second while `wanted`. */
export function useNow(wanted: boolean): number {
  const [, again] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    if (!wanted) return undefined;
    const timer = setInterval(() => again(undefined), 1000);
    return () => clearInterval(timer);
  }, [wanted]);
  return live.now();
}

/** Whether a list as of one event's number lacks a later event. */
export function isBehind(position: string, newest: string): boolean {
  if (newest === "") return false;
  const [epoch, number] = position.split("-");
  const [newestEpoch, newestNumber] = newest.split("-");
  return epoch !== newestEpoch || Number(number) < Number(newestNumber);
}
