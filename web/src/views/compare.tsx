// Two runs next to each other.

import { useState } from "preact/hooks";
import { get, job as pathOf } from "../data/api";
import { change, jobLink, useAddress } from "../data/address";
import { useAsked } from "../data/asking";
import { clock, count, seconds } from "../data/numbers";
import type { JobDetail, JobPage, Metrics, Trace } from "../data/types";
import { Badge, Problem, Wide } from "../parts/fields";
import { FIGURES, shortfall } from "../parts/figures";
import { Gantt } from "../parts/gantt";
import { useWords } from "../words";

export function CompareView() {
  const words = useWords();
  const { query } = useAddress();
  const a = query.get("a") ?? "";
  const b = query.get("b") ?? "";
  return (
    <>
      <h1>{words.compare.title}</h1>
      <Choice key={`${a} ${b}`} a={a} b={b} />
      {a !== "" && b !== "" && (a === b ? <Problem text={words.compare.same} /> : <Two key={`${a} ${b}`} a={a} b={b} />)}
    </>
  );
}

function Choice(props: { a: string; b: string }) {
  const words = useWords();
  const [a, setA] = useState(props.a);
  const [b, setB] = useState(props.b);
  const newest = useAsked("newest", (signal) => get<JobPage>("/view/jobs?limit=50", signal));
  const show = (event: Event): void => {
    event.preventDefault();
    change({ a: a.trim(), b: b.trim() });
  };
  const field = (label: string, id: string, value: string, set: (value: string) => void) => (
    <div class="field">
      <label class="name" for={id}>
        {label}
      </label>
      <input id={id} type="text" required list="newest" placeholder={words.compare.id} value={value} onInput={(event) => set(event.currentTarget.value)} />
    </div>
  );
  return (
    <form class="card row" onSubmit={show}>
      {field(words.compare.first, "first", a, setA)}
      {field(words.compare.second, "second", b, setB)}
      <datalist id="newest">
        {newest.value?.jobs.map((row) => (
          <option key={row.task_id} value={row.task_id}>
            {`${row.workload} · ${words.states[row.state]} · ${clock(row.created_at, words.locale)}`}
          </option>
        ))}
      </datalist>
      <button type="submit" class="main">
        {words.compare.show}
      </button>
    </form>
  );
}

interface Run {
  job: JobDetail;
  trace: Trace;
}

function Two(props: { a: string; b: string }) {
  const words = useWords();
  const ask = async (id: string, signal: AbortSignal): Promise<Run> => {
    const [job, trace] = await Promise.all([
      get<JobDetail>(pathOf("/view/jobs", id), signal),
      get<Trace>(`${pathOf("/view/jobs", id)}/trace`, signal),
    ]);
    return { job, trace };
  };
  const found = useAsked(`${props.a} ${props.b}`, (signal) => Promise.all([ask(props.a, signal), ask(props.b, signal)]));
  if (found.value === null) return found.error === null ? <p class="empty">{words.loading}</p> : <Problem text={found.error} />;
  const [a, b] = found.value;
  const until = Math.max(...a.trace.placements.end, ...b.trace.placements.end, 0);
  return (
    <>
      <Differences a={a.job} b={b.job} />
      <div class="two">
        {[a, b].map((run, number) => (
          <section key={number} class="card" aria-label={number ? words.compare.second : words.compare.first}>
            <h2>
              <a href={jobLink(run.job.task_id)}>
                        {run.job.workload} <code class="id">{run.job.task_id.slice(0, 8)}</code>
                      </a>
            </h2>
            {run.trace.placements.start.length ? (
              <Gantt placements={run.trace.placements} until={until} />
            ) : (
              <p class="hint">{words.job.noCluster}</p>
            )}
          </section>
        ))}
      </div>
      <Params a={a.job} b={b.job} />
    </>
  );
}

interface Line {
  name: string;
  a: number | null;
  b: number | null;
  show: (value: number) => string;
  /** Negative where b is better. */
  worse: (a: number, b: number) => number;
}

/** A smaller part of a figure is no difference to speak of. */
const LEAST = 0.01;

const less = (a: number, b: number): number => b - a;
const neither = (): number => 0;

function Differences(props: { a: JobDetail; b: JobDetail }) {
  const words = useWords();
  const { a, b } = props;
  const ran = (job: JobDetail): number | null => (job.started_at === null || job.finished_at === null ? null : job.finished_at - job.started_at);
  const waited = (job: JobDetail): number | null => (job.started_at === null ? null : job.started_at - job.created_at);
  const of = (job: JobDetail, name: keyof Metrics): number | null => job.metrics?.[name] ?? null;
  const lines: Line[] = [
    { name: words.job.ran, a: ran(a), b: ran(b), show: seconds, worse: less },
    { name: words.job.waited, a: waited(a), b: waited(b), show: seconds, worse: less },
    ...FIGURES.map((figure) => ({
      name: words.job.figures[figure].slice(0, 2).join(" · "),
      a: of(a, figure),
      b: of(b, figure),
      show: (value: number) => value.toFixed(3),
      worse: (one: number, other: number) => shortfall(figure, other) - shortfall(figure, one),
    })),
    { name: words.job.more.makespan, a: of(a, "makespan_seconds"), b: of(b, "makespan_seconds"), show: seconds, worse: less },
    { name: words.job.more.busy, a: of(a, "busy_seconds"), b: of(b, "busy_seconds"), show: seconds, worse: less },
    { name: words.job.more.mean, a: of(a, "mean_task_seconds"), b: of(b, "mean_task_seconds"), show: seconds, worse: less },
    { name: words.job.more.slots, a: of(a, "slots"), b: of(b, "slots"), show: count, worse: neither },
    { name: words.job.tasks, a: of(a, "tasks"), b: of(b, "tasks"), show: count, worse: neither },
    { name: words.job.bundles, a: of(a, "bundles"), b: of(b, "bundles"), show: count, worse: neither },
  ];
  return (
    <div class="card flush">
      <Wide label={words.compare.ofMetrics}>
        <table>
          <thead>
            <tr>
              <th scope="col">{words.compare.figure}</th>
              {[a, b].map((job, number) => (
                <th scope="col" class="number" key={number}>
                  {number ? words.compare.second : words.compare.first} <Badge state={job.state} />
                </th>
              ))}
              <th scope="col" class="number">
                {words.compare.difference}
              </th>
            </tr>
          </thead>
          <tbody>
            {lines.map((line) => (
              <tr key={line.name}>
                <th scope="row">{line.name}</th>
                <td class="number">{line.a === null ? "–" : line.show(line.a)}</td>
                <td class="number">{line.b === null ? "–" : line.show(line.b)}</td>
                <td class="number">
                  <Difference line={line} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
    </div>
  );
}

function Difference(props: { line: Line }) {
  const words = useWords();
  const { a, b, show, worse } = props.line;
  if (a === null || b === null) return <>–</>;
  const more = b - a;
  const relative = a === 0 ? "" : ` (${more >= 0 ? "+" : "−"}${Math.abs((100 * more) / a).toFixed(0)} %)`;
  const text = more === 0 ? "0" : `${more > 0 ? "+" : "−"}${show(Math.abs(more))}${relative}`;
  const by = Math.abs(more) < LEAST * Math.max(Math.abs(a), Math.abs(b)) ? 0 : worse(a, b);
  return (
    <>
      {text} {by < 0 && <span class="badge succeeded">{words.compare.better}</span>}
      {by > 0 && <span class="badge failed">{words.compare.worse}</span>}
    </>
  );
}

function Params(props: { a: JobDetail; b: JobDetail }) {
  const words = useWords();
  const { a, b } = props;
  if (a.params === undefined || b.params === undefined) return null;
  return (
    <section aria-labelledby="params">
      <h2 id="params">{words.compare.params}</h2>
      {a.params === b.params ? (
        <p class="hint">{words.compare.sameParams}</p>
      ) : (
        <div class="two">
          {[a, b].map((job, number) => (
            <Marked key={number} text={job.params!} other={number ? a.params! : b.params!} label={number ? words.compare.second : words.compare.first} />
          ))}
        </div>
      )}
    </section>
  );
}

/** A text of which the lines that the other has not are marked. */
function Marked(props: { text: string; other: string; label: string }) {
  const known = new Set(props.other.split("\n"));
  return (
    <pre class="card json" tabIndex={0} role="group" aria-label={props.label}>
      {props.text.split("\n").map((line, number) => (known.has(line) ? `${line}\n` : <mark key={number}>{`${line}\n`}</mark>))}
    </pre>
  );
}
