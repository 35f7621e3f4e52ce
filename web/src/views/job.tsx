// One job: how it is, where its work ran and why, what it printed, how good that was.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { get, job as pathOf, paths, post } from "../data/api";
import { change, go, jobLink, to, useAddress } from "../data/address";
import { useAsked } from "../data/asking";
import { live, useNow } from "../data/live";
import { bytes, clock, count, moment, seconds, shortName } from "../data/numbers";
import { bundleName, pack, perfetto } from "../data/packing";
import { isFinished, type JobDetail, type LogLine, type PlacementColumns, type Row, type Trace } from "../data/types";
import { Badge, Copy, Facts, Pager, Problem, Wide } from "../parts/fields";
import { Figures } from "../parts/figures";
import { Gantt } from "../parts/gantt";
import { Graphs } from "../parts/graph";
import { JobProgress } from "../parts/jobprogress";
import { useWords } from "../words";

const TABS = ["timeline", "graph", "placements", "log", "events", "data"] as const;
type Tab = (typeof TABS)[number];

export function JobView(props: { id: string }) {
  const words = useWords();
  const { query } = useAddress();
  const { id } = props;
  const found = useAsked(id, (signal) => get<JobDetail>(pathOf("/view/jobs", id), signal));
  const trace = useAsked(id, (signal) => get<Trace>(`${pathOf("/view/jobs", id)}/trace`, signal), 1000);
  useEffect(
    () =>
      live.listen("job", (row) => {
        if (row?.task_id !== id) return;
        found.again();
        trace.again();
      }),
    [id, found.again, trace.again],
  );
  useEffect(() => live.listen("missed", found.again), [found.again]);
  useEffect(
    () =>
      live.listen("progress", () => {
        if (live.progress.has(id)) trace.again();
      }),
    [id, trace.again],
  );
  const job = found.value;
  if (job === null) {
    const text = found.status === 404 ? words.job.gone : found.error;
    return text === null ? <p class="empty">{words.loading}</p> : <Problem text={text} />;
  }
  const wanted = query.get("tab") as Tab;
  const tab = TABS.includes(wanted) ? wanted : "timeline";
  return (
    <>
      <Head job={job} trace={trace.value} again={found.again} />
      <nav class="tabs" aria-label={words.job.tabs.label}>
        {TABS.map((one) => (
          <a
            key={one}
            href={jobLink(id, one === "timeline" ? {} : { tab: one })}
            aria-current={tab === one ? "page" : undefined}
            onClick={(event) => {
              event.preventDefault();
              change({ tab: one === "timeline" ? "" : one }, true);
            }}
          >
            {words.job.tabs[one]}
          </a>
        ))}
      </nav>
      <Problem text={trace.error} />
      <section aria-label={words.job.tabs[tab]}>
        <Part tab={tab} job={job} trace={trace.value} />
      </section>
    </>
  );
}

function Part(props: { tab: Tab; job: JobDetail; trace: Trace | null }) {
  const words = useWords();
  const { tab, job, trace } = props;
  if (tab === "log") return <Log job={job} />;
  if (tab === "data") return <Data job={job} />;
  if (trace === null) return <p class="empty">{words.loading}</p>;
  if (tab === "graph") return <Graphs graphs={trace.graphs} />;
  if (tab === "events") return <Events job={job} trace={trace} />;
  if (trace.placements.start.length === 0) {
    const none = isFinished(job.state) ? (tab === "placements" ? words.placements.none : words.job.noCluster) : words.job.notYet;
    return <p class="empty">{none}</p>;
  }
  return tab === "placements" ? <Placements placements={trace.placements} /> : <Gantt placements={trace.placements} />;
}

function Head(props: { job: JobDetail; trace: Trace | null; again: () => void }) {
  const words = useWords();
  const { job, trace } = props;
  const now = useNow(!isFinished(job.state));
  const waitedUntil = job.started_at ?? job.finished_at ?? now;
  const retried = trace?.placements.retried.length ?? 0;
  return (
    <>
      <p class="back">
        <a href={to("jobs")}>← {words.job.back}</a>
      </p>
      <div class="row spread">
        <div class="title">
          <h1>{job.workload}</h1>
          <Badge state={job.state} row={job} />
          <code class="id">{job.task_id}</code>
          <Copy text={job.task_id} />
        </div>
        <Actions job={job} trace={trace} again={props.again} />
      </div>
      <div class="card">
        <JobProgress row={job} long />
        <Facts
          facts={[
            [words.job.submitted, <Time at={job.created_at} />],
            [words.job.waited, seconds(Math.max(0, waitedUntil - job.created_at))],
            [words.job.ran, job.started_at === null ? "–" : seconds(Math.max(0, (job.finished_at ?? now) - job.started_at))],
            [words.job.ended, <Time at={job.finished_at} />],
            [words.job.attempts, `${job.attempts}${job.deaths ? ` (${words.job.deaths(job.deaths)})` : ""}`],
            [words.job.tasks, trace === null || !trace.items_total ? "–" : `${count(trace.items_done)} / ${count(trace.items_total)}`],
            [words.job.bundles, trace === null ? "–" : count(trace.placements.start.length + trace.placements.dropped)],
            [words.job.retried, trace === null ? "–" : count(retried)],
            [words.job.priority, String(job.priority)],
            [words.job.user, job.user],
            [words.job.version, job.version],
            ...(job.timeout_seconds === null ? [] : [[words.job.timeout, seconds(job.timeout_seconds)] as [string, string]]),
            ...(job.deadline_at === null ? [] : [[words.job.deadline, moment(job.deadline_at, words.locale)] as [string, string]]),
          ]}
        />
        {job.error !== null && (
          <div class="error">
            <h2>{words.job.error}</h2>
            <p>
              <strong>{job.error.type}</strong>
            </p>
            <pre>{job.error.message}</pre>
          </div>
        )}
      </div>
      {job.metrics !== null ? <Figures metrics={job.metrics} /> : !isFinished(job.state) && <p class="hint later">{words.job.figuresLater}</p>}
    </>
  );
}

function Time(props: { at: number | null }) {
  const words = useWords();
  if (props.at === null) return <>–</>;
  return <time title={moment(props.at, words.locale)}>{clock(props.at, words.locale)}</time>;
}

function Actions(props: { job: JobDetail; trace: Trace | null; again: () => void }) {
  const words = useWords();
  const { job, trace } = props;
  const [problem, setProblem] = useState<string | null>(null);
  const [canRetry, setCanRetry] = useState(false);
  useEffect(() => {
    paths().then(
      (known) => setCanRetry(known.has("/retry/{task_id}")),
      () => setCanRetry(false), // the service does not say what it can: the button stays away
    );
  }, []);
  const act = async (what: () => Promise<unknown>): Promise<void> => {
    setProblem(null);
    try {
      await what();
      props.again();
    } catch (error) {
      setProblem((error as Error).message);
    }
  };
  const retry = async (): Promise<void> => {
    const { task_id } = await post<{ task_id: string }>(pathOf("/retry", job.task_id));
    go(jobLink(task_id));
  };
  const over = isFinished(job.state);
  return (
    <div class="actions">
      {!over && (
        <button type="button" class="danger" disabled={job.cancel_requested} onClick={() => void act(() => post(pathOf("/cancel", job.task_id)))}>
          {words.job.cancel}
        </button>
      )}
      {over && job.state !== "succeeded" && canRetry && (
        <button type="button" onClick={() => void act(retry)}>
          {words.job.retry}
        </button>
      )}
      <a class="button" href={to("submit", { from: job.task_id })}>
        {words.job.again}
      </a>
      <a class="button" href={to("compare", { a: job.task_id })}>
        {words.job.compare}
      </a>
      {trace !== null && trace.placements.start.length > 0 && (
        <button type="button" onClick={() => save(`${job.workload}-${job.task_id.slice(0, 8)}.json`, perfetto(trace.placements, pack(trace.placements)))}>
          {words.job.exportTrace}
        </button>
      )}
      <Problem text={problem} />
    </div>
  );
}

function save(name: string, content: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

const ROWS = 100;

function Placements(props: { placements: PlacementColumns }) {
  const words = useWords();
  const columns = props.placements;
  const { query } = useAddress();
  const reason = query.get("reason");
  const offset = Math.max(0, Number(query.get("row") ?? 0) || 0);
  const often = useMemo(() => {
    const counted = new Array<number>(columns.reasons.length).fill(0);
    for (const number of columns.reason) counted[number]! += 1;
    return columns.reasons.map((text, number) => ({ text, number, times: counted[number]! })).sort((a, b) => b.times - a.times);
  }, [columns]);
  const rows = useMemo(() => {
    const all = columns.start.map((_, row) => row);
    const found = reason === null ? all : all.filter((row) => columns.reasons[columns.reason[row]!] === reason);
    return found.sort((a, b) => columns.start[a]! - columns.start[b]!);
  }, [columns, reason]);
  const retried = useMemo(() => new Set(columns.retried), [columns]);
  return (
    <>
      <h2 class="small">{words.placements.reasons}</h2>
      <ul class="reasons">
        {often.slice(0, 12).map((one) => (
          <li key={one.number}>
            <button type="button" class="chip" aria-pressed={reason === one.text} onClick={() => change({ reason: reason === one.text ? "" : one.text, row: "" }, true)}>
              {one.text} <span class="many">{count(one.times)}</span>
            </button>
          </li>
        ))}
      </ul>
      <div class="card flush">
        <Wide label={words.job.tabs.placements}>
          <table>
            <thead>
              <tr>
                <th scope="col">{words.placements.bundle}</th>
                <th scope="col">{words.placements.node}</th>
                <th scope="col">{words.placements.device}</th>
                <th scope="col" class="number">
                  {words.placements.start}
                </th>
                <th scope="col" class="number">
                  {words.placements.actual}
                </th>
                <th scope="col" class="number">
                  {words.placements.predicted}
                </th>
                <th scope="col">{words.placements.reason}</th>
              </tr>
            </thead>
            <tbody>
              {rows.slice(offset, offset + ROWS).map((row) => (
                <tr key={row}>
                  <td>
                    <code title={bundleName(columns, row)}>{shortName(columns.names[columns.name[row]!]!)}</code>{" "}
                    <code class="id">{columns.label[row]!.slice(-14)}</code> {retried.has(row) && <span class="badge failed">{words.job.retried}</span>}
                  </td>
                  <td>
                    <code>{columns.nodes[columns.node[row]!]!.slice(0, 8)}</code>
                  </td>
                  <td>{columns.devices[columns.device[row]!]}</td>
                  <td class="number">{seconds(columns.start[row]!)}</td>
                  <td class="number">{seconds(columns.actual[row]!)}</td>
                  <td class="number">{seconds(columns.predicted[row]!)}</td>
                  <td class="reason">{columns.reasons[columns.reason[row]!]}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Wide>
      </div>
      {rows.length > ROWS && <Pager offset={offset} limit={ROWS} total={rows.length} onChange={(row) => change({ row: row ? String(row) : "" }, true)} />}
    </>
  );
}

const MOST_LINES = 5000;

function Log(props: { job: Row }) {
  const words = useWords();
  const { job } = props;
  const [lines, setLines] = useState<LogLine[]>([]);
  const [problem, setProblem] = useState<string | null>(null);
  const [stay, setStay] = useState(true);
  const box = useRef<HTMLPreElement>(null);
  useEffect(() => {
    const end = new AbortController();
    void (async () => {
      let next = 0;
      while (!end.signal.aborted) {
        try {
          const found = await get<{ lines: LogLine[]; next: number; finished: boolean }>(`${pathOf("/logs", job.task_id)}?first=${next}`, end.signal);
          setProblem(null);
          if (found.lines.length) setLines((before) => [...before, ...found.lines].slice(-MOST_LINES));
          next = found.next;
          if (found.finished) return;
          if (found.lines.length) continue;
        } catch (error) {
          if (end.signal.aborted) return;
          setProblem((error as Error).message);
        }
        await new Promise((done) => setTimeout(done, 1000));
      }
    })();
    return () => end.abort();
  }, [job.task_id]);
  useEffect(() => {
    if (stay && box.current !== null) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, stay]);
  return (
    <>
      <div class="row spread">
        <span class="hint">{words.log.shown(count(lines.length))}</span>
        <label class="check">
          <input type="checkbox" checked={stay} onChange={(event) => setStay(event.currentTarget.checked)} /> {words.log.follow}
        </label>
      </div>
      <Problem text={problem} />
      {lines.length === 0 ? (
        <p class="empty">{words.log.none}</p>
      ) : (
        <pre class="log" ref={box} tabIndex={0} role="log" aria-label={words.log.lines}>
          {lines.map((line) => (
            <span key={line.number} class={line.stream}>
              <i>{clock(line.time, words.locale)}</i> {line.text}
              {"\n"}
            </span>
          ))}
        </pre>
      )}
    </>
  );
}

function Events(props: { job: JobDetail; trace: Trace }) {
  const words = useWords();
  const { job, trace } = props;
  const steps: [number, string, string, string][] = [[job.created_at, words.states.queued, "", ""]];
  if (job.started_at !== null) steps.push([job.started_at, words.states.running, "", ""]);
  if (job.finished_at !== null) steps.push([job.finished_at, words.states[job.state], job.error === null ? "" : `${job.error.type}: ${job.error.message.slice(0, 500)}`, ""]);
  for (const [time, kind, text, bundle, node] of trace.events) steps.push([time, kind, text, [bundle, node.slice(0, 8)].filter(Boolean).join(" · ")]);
  steps.sort((a, b) => a[0] - b[0]);
  return (
    <div class="card flush">
      <Wide label={words.job.tabs.events}>
        <table>
          <thead>
            <tr>
              <th scope="col">{words.events.time}</th>
              <th scope="col">{words.events.kind}</th>
              <th scope="col">{words.events.text}</th>
              <th scope="col">{words.events.where}</th>
            </tr>
          </thead>
          <tbody>
            {steps.map(([time, kind, text, where], number) => (
              <tr key={number}>
                <td class="nowrap">
                  {clock(time, words.locale)} <span class="hint">+{seconds(Math.max(0, time - job.created_at))}</span>
                </td>
                <td>{kind}</td>
                <td class="reason">{text}</td>
                <td>
                  <code>{where}</code>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
    </div>
  );
}

function Data(props: { job: JobDetail }) {
  const words = useWords();
  const { job } = props;
  return (
    <div class="two">
      <div class="card">
        <h2>{words.data.params}</h2>
        <Json text={job.params} size={job.params_bytes} label={words.data.params} />
      </div>
      <div class="card">
        <h2>{words.data.result}</h2>
        {job.result_bytes === undefined ? <p class="hint">{words.data.noResult}</p> : <Json text={job.result} size={job.result_bytes} label={words.data.result} />}
      </div>
    </div>
  );
}

function Json(props: { text: string | undefined; size: number; label: string }) {
  const words = useWords();
  if (props.text === undefined) return <p class="hint">{words.data.tooLarge(bytes(props.size))}</p>;
  return (
    <>
      <pre class="json" tabIndex={0} role="group" aria-label={props.label}>
        {props.text}
      </pre>
      <Copy text={props.text} />
    </>
  );
}
