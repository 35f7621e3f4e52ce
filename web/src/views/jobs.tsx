// The list of jobs: filtered and paged by the service, so that ten thousand stay quick.

import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../data/api";
import { change, go, jobLink, to, useAddress } from "../data/address";
import { useAsked } from "../data/asking";
import { isBehind, live } from "../data/live";
import { clock, count, seconds } from "../data/numbers";
import { type JobPage, type Row, STATES } from "../data/types";
import { Badge, Pager, Problem, Select, Wide } from "../parts/fields";
import { JobProgress } from "../parts/jobprogress";
import { useWords } from "../words";

const LIMITS = ["25", "50", "100", "200"];
const TYPING_MILLISECONDS = 150;

export function JobsView() {
  const words = useWords();
  const { query } = useAddress();
  const limit = Number(LIMITS.includes(query.get("rows") ?? "") ? query.get("rows") : 50);
  const offset = Math.max(0, Number(query.get("offset") ?? 0) || 0);
  const asked = new URLSearchParams({ limit: String(limit), offset: String(offset) });
  for (const name of ["state", "workload", "user", "text"]) {
    const value = query.get(name);
    if (value) asked.set(name, value);
  }
  const found = useAsked(asked.toString(), (signal) => get<JobPage>(`/view/jobs?${asked}`, signal), 500);
  useLive(found);
  const [chosen, setChosen] = useState<string[]>([]);
  const toggle = (id: string): void =>
    setChosen((before) => (before.includes(id) ? before.filter((one) => one !== id) : [...before, id].slice(-2)));
  const filtered = ["state", "workload", "user", "text"].some((name) => query.get(name));
  const page = found.value;
  return (
    <>
      <div class="row spread">
        <h1>{words.jobs.title}</h1>
        <button type="button" disabled={chosen.length !== 2} onClick={() => go(to("compare", { a: chosen[0]!, b: chosen[1]! }))}>
          {words.jobs.compare(chosen.length)}
        </button>
      </div>
      <Filters page={page} query={query} />
      <Problem text={found.error === null ? null : words.noAnswer(found.error)} />
      {page === null ? (
        <p class="empty">{words.loading}</p>
      ) : page.jobs.length === 0 && page.total === 0 ? (
        <p class="empty">
          {filtered ? words.jobs.none : words.jobs.nothing}{" "}
          {filtered ? <a href={to("jobs")}>{words.jobs.clear}</a> : <a href={to("submit")}>{words.jobs.first}</a>}
        </p>
      ) : (
        <Table rows={page.jobs} chosen={chosen} toggle={toggle} />
      )}
      {page !== null && page.total > 0 && (
        <div class="row spread">
          <Pager offset={offset} limit={limit} total={page.total} onChange={(to_) => change({ offset: String(Math.max(0, to_)) })} />
          <Select
            label={words.jobs.rows}
            value={String(limit)}
            options={LIMITS.map((one) => [one, one])}
            onChange={(rows) => change({ rows, offset: "" })}
          />
        </div>
      )}
    </>
  );
}

/** Keep a page of jobs as the service's events say, and ask anew for what they do not say. */
function useLive(found: ReturnType<typeof useAsked<JobPage>>): void {
  const { value, again, set } = found;
  useEffect(() => {
    if (value !== null && isBehind(value.position, live.position)) again();
  }, [value]);
  useEffect(
    () =>
      live.listen("job", (row) => {
        if (row === undefined) return;
        set((page) => {
          if (!page.jobs.some((one) => one.task_id === row.task_id)) return page;
          return { ...page, jobs: page.jobs.map((one) => (one.task_id === row.task_id ? row : one)) };
        });
        again();
      }),
    [again, set],
  );
  useEffect(() => live.listen("missed", again), [again]);
}

function Filters(props: { page: JobPage | null; query: URLSearchParams }) {
  const words = useWords();
  const { page, query } = props;
  const states = new Set((query.get("state") ?? "").split(",").filter(Boolean));
  const set = (name: string, value: string): void => change({ [name]: value, offset: "" });
  const toggle = (state: string): void => {
    const next = new Set(states);
    if (!next.delete(state)) next.add(state);
    set("state", STATES.filter((one) => next.has(one)).join(","));
  };
  const options = (names: string[] | undefined, value: string): [string, string][] => {
    const known = names ?? [];
    const all = value && !known.includes(value) ? [value, ...known] : known;
    return [["", words.jobs.any], ...all.map((name): [string, string] => [name, name])];
  };
  const workload = query.get("workload") ?? "";
  const user = query.get("user") ?? "";
  return (
    <div class="filters">
      <div class="chips" role="group" aria-label={words.jobs.state}>
        {STATES.map((state) => (
          <button key={state} type="button" class={`chip ${state}`} aria-pressed={states.has(state)} onClick={() => toggle(state)}>
            {words.states[state]} <span class="many">{page === null ? "" : count(page.counts[state])}</span>
          </button>
        ))}
      </div>
      <Search value={query.get("text") ?? ""} />
      <Select label={words.jobs.workload} value={workload} options={options(page?.workloads, workload)} onChange={(value) => set("workload", value)} />
      <Select label={words.jobs.user} value={user} options={options(page?.users, user)} onChange={(value) => set("user", value)} />
      <span class="hint" role="status">
        {page === null ? "" : words.jobs.found(count(page.total))}
      </span>
    </div>
  );
}

function Search(props: { value: string }) {
  const words = useWords();
  const [text, setText] = useState(props.value);
  const timer = useRef(0);
  const sent = useRef(props.value);
  useEffect(() => {
    if (props.value !== sent.current) setText((sent.current = props.value)); // by a step back
  }, [props.value]);
  const type = (value: string): void => {
    setText(value);
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => {
      sent.current = value;
      change({ text: value, offset: "" }, true);
    }, TYPING_MILLISECONDS);
  };
  return (
    <label class="field">
      <span class="name">{words.jobs.search}</span>
      <input type="search" value={text} placeholder={words.jobs.searchHint} onInput={(event) => type(event.currentTarget.value)} />
    </label>
  );
}

function Table(props: { rows: Row[]; chosen: string[]; toggle: (id: string) => void }) {
  const words = useWords();
  return (
    <div class="card flush">
      <Wide label={words.jobs.title}>
        <table class="jobs">
          <thead>
            <tr>
              <th scope="col">
                <span class="unseen">{words.nav.compare}</span>
              </th>
              <th scope="col">{words.jobs.job}</th>
              <th scope="col">{words.jobs.state}</th>
              <th scope="col" class="grow">
                {words.jobs.progress}
              </th>
              <th scope="col" class="number roomy">
                {words.jobs.submitted}
              </th>
              <th scope="col" class="number spare">
                {words.jobs.waited}
              </th>
              <th scope="col" class="number roomy">
                {words.jobs.ran}
              </th>
              <th scope="col" class="number spare">
                {words.jobs.figures}
              </th>
              <th scope="col" class="number spare">
                {words.jobs.priority}
              </th>
              <th scope="col" class="spare">
                {words.jobs.user}
              </th>
            </tr>
          </thead>
          <tbody>
            {props.rows.map((row) => (
              <Line key={row.task_id} row={row} chosen={props.chosen.includes(row.task_id)} toggle={props.toggle} />
            ))}
          </tbody>
        </table>
      </Wide>
    </div>
  );
}

function Line(props: { row: Row; chosen: boolean; toggle: (id: string) => void }) {
  const words = useWords();
  const { row, chosen } = props;
  const short = row.task_id.slice(0, 8);
  const waited = row.started_at === null ? (row.finished_at ?? live.now()) - row.created_at : row.started_at - row.created_at;
  const ran = row.started_at === null ? null : (row.finished_at ?? live.now()) - row.started_at;
  return (
    <tr>
      <td>
        <input type="checkbox" checked={chosen} aria-label={words.jobs.choose(short)} onChange={() => props.toggle(row.task_id)} />
      </td>
      <td>
        <a href={jobLink(row.task_id)}>
                        {row.workload} <code class="id">{short}</code>
                      </a>
      </td>
      <td>
        <Badge state={row.state} row={row} />
      </td>
      <td class="grow">
        <JobProgress row={row} />
      </td>
      <td class="number roomy">{clock(row.created_at, words.locale)}</td>
      <td class="number spare">{seconds(Math.max(0, waited))}</td>
      <td class="number roomy">{seconds(ran)}</td>
      <td class="number spare">
        {row.metrics === null ? "–" : `${row.metrics.efficiency.toFixed(2)} / ${row.metrics.imbalance.toFixed(2)}`}
      </td>
      <td class="number spare">{row.priority}</td>
      <td class="spare">{row.user}</td>
    </tr>
  );
}
