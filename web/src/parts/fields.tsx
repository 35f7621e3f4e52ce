// Small pieces that views are made of.

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Row, State } from "../data/types";
import { useWords } from "../words";

export function Badge(props: { state: State; row?: Row }) {
  const words = useWords();
  const cancelling = props.row !== undefined && props.row.cancel_requested && props.state === "running";
  return (
    <span class={`badge ${props.state}`}>
      <span class="dot" aria-hidden="true" />
      {cancelling ? words.jobs.cancelling : words.states[props.state]}
    </span>
  );
}

export function Select(props: {
  label: string;
  value: string;
  options: [value: string, shown: string][];
  onChange: (value: string) => void;
  quiet?: boolean;
}) {
  return (
    <label class={props.quiet ? "field quiet" : "field"}>
      <span class={props.quiet ? "unseen" : "name"}>{props.label}</span>
      <select value={props.value} onChange={(event) => props.onChange(event.currentTarget.value)}>
        {props.options.map(([value, shown]) => (
          <option key={value} value={value} selected={value === props.value}>
            {shown}
          </option>
        ))}
      </select>
    </label>
  );
}

/** A bar from 0 to 1. */
export function Meter(props: { value: number | null; label: string; kind?: string }) {
  const value = props.value === null ? null : Math.min(1, Math.max(0, props.value));
  const full = value !== null && value > 0.9 ? " full" : "";
  return (
    <div
      class={`meter ${props.kind ?? ""}${full}`}
      role="meter"
      aria-label={props.label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(100 * (value ?? 0))}
    >
      <div style={{ width: `${100 * (value ?? 0)}%` }} />
    </div>
  );
}

export function Progress(props: { done: number; total: number; label: string }) {
  const part = props.total ? Math.min(1, props.done / props.total) : 0;
  return (
    <div
      class="progress"
      role="progressbar"
      aria-label={props.label}
      aria-valuemin={0}
      aria-valuemax={props.total}
      aria-valuenow={props.done}
    >
      <div style={{ width: `${100 * part}%` }} />
    </div>
  );
}

export function Facts(props: { facts: [name: string, value: ComponentChildren][] }) {
  return (
    <dl class="facts">
      {props.facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Problem(props: { text: string | null }) {
  return props.text === null ? null : (
    <p class="problem" role="alert">
      {props.text}
    </p>
  );
}

/** Wide content that scrolls sideways, also by keyboard. */
export function Wide(props: { label: string; children: ComponentChildren; class?: string }) {
  return (
    <div class={`wide ${props.class ?? ""}`} role="group" aria-label={props.label} tabIndex={0}>
      {props.children}
    </div>
  );
}

export function Pager(props: { offset: number; limit: number; total: number; onChange: (offset: number) => void }) {
  const words = useWords();
  const pages = Math.max(1, Math.ceil(props.total / props.limit));
  const page = Math.min(pages, Math.floor(props.offset / props.limit) + 1);
  return (
    <nav class="pager" aria-label={words.jobs.page(String(page), String(pages))}>
      <button type="button" disabled={page <= 1} onClick={() => props.onChange(props.offset - props.limit)}>
        {words.jobs.previous}
      </button>
      <span>{words.jobs.page(String(page), String(pages))}</span>
      <button type="button" disabled={page >= pages} onClick={() => props.onChange(props.offset + props.limit)}>
        {words.jobs.next}
      </button>
    </nav>
  );
}

export function Copy(props: { text: string }) {
  const words = useWords();
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return undefined;
    const timer = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(timer);
  }, [done]);
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(props.text);
    setDone(true);
  };
  // (A page that was loaded over plain HTTP from another machine has no clipboard.)
  return navigator.clipboard === undefined ? null : (
    <button type="button" class="small" onClick={() => void copy()} aria-live="polite">
      {done ? words.data.copied : words.data.copy}
    </button>
  );
}
