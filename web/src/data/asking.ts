// Asking the service for something that a component shows, again when there is news.

import { useCallback, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "./api";

export interface Asked<T> {
  value: T | null;
  error: string | null;
  status: number;
  /** Ask again soon: at once if the last answer was quick and a while ago. */
  again: () => void;
  set: (change: (value: T) => T) => void;
}

const LEAST_PAUSE = 250;
const REST = 10; // the service is kept busy for at most so large a part of the time

/** The answer of `ask`, which is asked anew when `key` changes. */
export function useAsked<T>(key: string, ask: (signal: AbortSignal) => Promise<T>, pause = LEAST_PAUSE): Asked<T> {
  const [state, setState] = useState<{ key: string; value: T | null; error: string | null; status: number }>({
    key,
    value: null,
    error: null,
    status: 0,
  });
  const running = useRef<{ end: AbortController; due: number; timer: number; wanted: boolean; busy: boolean } | null>(null);

  // (Before the frame is painted: what is asked for is there a frame earlier.)
  useLayoutEffect(() => {
    const mine = { end: new AbortController(), due: 0, timer: 0, wanted: false, busy: false };
    running.current = mine;
    void go(mine);
    return () => {
      mine.end.abort();
      clearTimeout(mine.timer);
    };
  }, [key]);

  async function go(mine: NonNullable<typeof running.current>): Promise<void> {
    mine.busy = true;
    mine.wanted = false;
    const began = performance.now();
    try {
      const value = await ask(mine.end.signal);
      if (mine.end.signal.aborted) return;
      setState({ key, value, error: null, status: 200 });
    } catch (error) {
      if (mine.end.signal.aborted) return;
      const status = error instanceof ApiError ? error.status : 0;
      setState((before) => ({ key, value: before.key === key ? before.value : null, error: String((error as Error).message), status }));
    }
    mine.busy = false;
    const now = performance.now();
    mine.due = now + Math.max(pause, REST * (now - began));
    if (mine.wanted) later(mine);
  }

  function later(mine: NonNullable<typeof running.current>): void {
    clearTimeout(mine.timer);
    mine.timer = window.setTimeout(() => void go(mine), Math.max(0, mine.due - performance.now()));
  }

  const again = useCallback(() => {
    const mine = running.current;
    if (mine === null || mine.wanted) return;
    mine.wanted = true;
    if (!mine.busy) later(mine);
  }, [key]);

  const set = useCallback((change: (value: T) => T) => {
    setState((before) => (before.value === null ? before : { ...before, value: change(before.value) }));
  }, []);

  // What was asked before stays until the new answer is there: no flicker.
  return { value: state.value, error: state.error, status: state.status, again, set };
}
