// Server-sent events read through fetch, since EventSource cannot send a header.

import { ApiError, checked, headers } from "./api";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 8000;
const SILENT_MILLISECONDS = 40_000; // the service says something every 15 seconds

export type Listener = (kind: string, data: unknown, id: string | null) => void;

/** Follow `path` until the returned function is called. What was missed while the line was cut is
 * asked for by the number of the last event. */
export function follow(path: string, heard: Listener, connected: (is: boolean) => void): () => void {
  const over = new AbortController();
  let last: string | null = null;

  async function once(): Promise<void> {
    const line = new AbortController();
    const end = (): void => line.abort();
    over.signal.addEventListener("abort", end);
    let watch = setTimeout(end, SILENT_MILLISECONDS);
    try {
      const more: Record<string, string> = last === null ? {} : { "Last-Event-ID": last };
      const answer = await checked(
        await fetch(path, { headers: headers(more), signal: line.signal, cache: "no-store" }),
      );
      connected(true);
      const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(watch);
        watch = setTimeout(end, SILENT_MILLISECONDS);
        const parts = (rest + value).split("\n\n");
        rest = parts.pop()!;
        for (const part of parts) {
          const { kind, data, id } = parsed(part);
          if (id !== null) last = id;
          if (data !== null) heard(kind, JSON.parse(data), id);
        }
      }
    } finally {
      clearTimeout(watch);
      over.signal.removeEventListener("abort", end);
    }
  }

  async function always(): Promise<void> {
    let pause = FIRST_PAUSE;
    while (!over.signal.aborted) {
      const began = Date.now();
      try {
        await once();
      } catch (error) {
        if (error instanceof ApiError && error.status === 401) return;
      }
      if (over.signal.aborted) return;
      connected(false);
      pause = Date.now() - began > LONGEST_PAUSE ? FIRST_PAUSE : Math.min(2 * pause, LONGEST_PAUSE);
      await new Promise((done) => setTimeout(done, pause));
    }
  }

  void always();
  return () => over.abort();
}

function parsed(part: string): { kind: string; data: string | null; id: string | null } {
  let kind = "message";
  let id: string | null = null;
  const data: string[] = [];
  for (const line of part.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const name = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") kind = value;
    else if (name === "id") id = value;
    else if (name === "data") data.push(value);
  }
  return { kind, data: data.length ? data.join("\n") : null, id };
}
