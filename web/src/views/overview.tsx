// The cluster now and over the last minutes, and what jobs there are.

import { useEffect } from "preact/hooks";
import { get } from "../data/api";
import { jobLink, to } from "../data/address";
import { useAsked } from "../data/asking";
import { isBehind, live, useNews } from "../data/live";
import { bytes, clock, count, percent, seconds } from "../data/numbers";
import type { ClusterNews, Gpu, JobPage, Node, Sample } from "../data/types";
import { STATES } from "../data/types";
import { BYTES, Chart } from "../parts/chart";
import { Badge, Meter, Problem, Wide } from "../parts/fields";
import { JobProgress } from "../parts/jobprogress";
import { useWords } from "../words";

const RECENT = 8;

export function Overview() {
  const words = useWords();
  const earlier = useAsked("cluster", (signal) => get<ClusterNews & { samples: Sample[] }>("/view/cluster", signal));
  useEffect(() => {
    if (earlier.value !== null) live.seed(earlier.value.samples, earlier.value);
  }, [earlier.value]);
  useNews("cluster");
  const jobs = useAsked("recent", (signal) => get<JobPage>(`/view/jobs?limit=${RECENT}`, signal), 500);
  useEffect(() => live.listen("job", jobs.again), [jobs.again]);
  useEffect(() => live.listen("missed", jobs.again), [jobs.again]);
  useEffect(() => {
    if (jobs.value !== null && isBehind(jobs.value.position, live.position)) jobs.again();
  }, [jobs.value]);
  const news = live.cluster;
  const newest = live.samples.at(-1) ?? null;
  return (
    <>
      <h1 class="unseen">{words.nav.overview}</h1>
      <Problem text={jobs.error === null ? null : words.noAnswer(jobs.error)} />
      <Problem text={earlier.error === null ? null : words.noAnswer(earlier.error)} />
      {news !== null && news.reason !== "" && (
        <p class="notice" role="status">
          {words.overview.away} {news.reason}
        </p>
      )}
      <Counts found={jobs.value} />
      <section aria-labelledby="cluster">
        <h2 id="cluster">{words.overview.title}</h2>
        {newest === null ? <p class="empty">{words.overview.waiting}</p> : <Charts newest={newest} />}
      </section>
      {news?.state != null && <Gpus nodes={news.state.nodes} />}
      {jobs.value !== null && <Recent found={jobs.value} />}
      {news?.state != null && <Nodes nodes={news.state.nodes} />}
    </>
  );
}

function Counts(props: { found: JobPage | null }) {
  const words = useWords();
  const { found } = props;
  return (
    <section aria-labelledby="now">
      <h2 id="now">{words.overview.jobs}</h2>
      <ul class="counts">
        {STATES.map((state) => (
          <li key={state}>
            <a href={to("jobs", { state })} class={state}>
              <strong>{found === null ? "–" : count(found.counts[state])}</strong>
              <span>{words.states[state]}</span>
            </a>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Recent(props: { found: JobPage }) {
  const words = useWords();
  const { found } = props;
  return (
    <section aria-labelledby="recent">
      <div class="row spread under">
        <h2 id="recent">{words.overview.recent}</h2>
        <a href={to("jobs")}>{words.overview.all}</a>
      </div>
      {found.jobs.length > 0 && (
        <div class="card flush">
          <Wide label={words.overview.recent}>
            <table>
              <thead>
                <tr>
                  <th scope="col">{words.jobs.job}</th>
                  <th scope="col">{words.jobs.state}</th>
                  <th scope="col" class="spare">
                    {words.jobs.progress}
                  </th>
                  <th scope="col" class="number">
                    {words.jobs.submitted}
                  </th>
                </tr>
              </thead>
              <tbody>
                {found.jobs.map((row) => (
                  <tr key={row.task_id}>
                    <td>
                      <a href={jobLink(row.task_id)}>
                        {row.workload} <code class="id">{row.task_id.slice(0, 8)}</code>
                      </a>
                    </td>
                    <td>
                      <Badge state={row.state} row={row} />
                    </td>
                    <td class="spare">
                      <JobProgress row={row} />
                    </td>
                    <td class="number">{clock(row.created_at, words.locale)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Wide>
        </div>
      )}
      {found.jobs.length === 0 && (
        <p class="empty">
          {words.jobs.nothing} <a href={to("submit")}>{words.jobs.first}</a>
        </p>
      )}
    </section>
  );
}

function Charts(props: { newest: Sample }) {
  const words = useWords();
  const { newest } = props;
  const { samples } = live;
  const times = samples.map((one) => one.time);
  const gpus = Object.keys(newest.gpus);
  const cpuNow = percent(newest.cpu);
  const memoryNow = words.overview.of(bytes(newest.memory_used), bytes(newest.memory_total));
  const storeNow = words.overview.of(bytes(newest.store_used), bytes(newest.store_total));
  return (
    <div class="charts">
      <ChartCard
        title={words.overview.cpu}
        now={cpuNow}
        note={words.overview.slotsFree(short(newest.cpus_free), short(newest.cpus_total))}
        times={times}
        series={[{ name: "cpu", color: "series-0", values: samples.map((one) => one.cpu) }]}
        top={1}
        format={(value) => percent(value)}
      />
      <ChartCard
        title={words.overview.memory}
        now={percent(part(newest.memory_used, newest.memory_total))}
        note={memoryNow}
        times={times}
        series={[{ name: "memory", color: "series-1", values: samples.map((one) => one.memory_used) }]}
        top={newest.memory_total ?? 1}
        format={bytes}
        steps={BYTES}
      />
      <ChartCard
        title={words.overview.store}
        now={percent(part(newest.store_used, newest.store_total))}
        note={storeNow}
        times={times}
        series={[{ name: "store", color: "series-2", values: samples.map((one) => one.store_used) }]}
        top={newest.store_total ?? 1}
        format={bytes}
        steps={BYTES}
      />
      {gpus.length > 0 && (
        <ChartCard
          title={words.overview.gpus}
          now={percent(mean(gpus.map((uuid) => newest.gpus[uuid]?.utilization ?? null)))}
          note={words.overview.busy}
          times={times}
          series={gpus.map((uuid, number) => ({
            name: uuid,
            color: `series-${number % 8}`,
            values: samples.map((one) => one.gpus[uuid]?.utilization ?? null),
          }))}
          top={1}
          format={(value) => percent(value)}
        />
      )}
    </div>
  );
}

function ChartCard(props: { title: string; now: string; note: string } & Omit<Parameters<typeof Chart>[0], "label">) {
  const words = useWords();
  const { title, now, note, ...chart } = props;
  return (
    <div class="card">
      <div class="head">
        <h3>{title}</h3>
        <span class="now">{now}</span>
        <span class="hint">{note}</span>
      </div>
      <Chart label={words.overview.chart(title, now)} {...chart} />
    </div>
  );
}

function Gpus(props: { nodes: Node[] }) {
  const words = useWords();
  const found = props.nodes.filter((node) => node.alive).flatMap((node) => node.gpus.map((gpu) => ({ node, gpu })));
  const reasons = [...new Set(props.nodes.map((node) => node.gpus_reason).filter(Boolean))];
  return (
    <section aria-labelledby="gpus">
      <h2 id="gpus">{words.overview.gpus}</h2>
      {found.length === 0 ? (
        <p class="card calm">
          {words.overview.noGpu} <span class="hint">{reasons.join("; ")}</span>
        </p>
      ) : (
        <ul class="cards">
          {found.map(({ node, gpu }) => (
            <li key={gpu.uuid} class="card">
              <GpuCard node={node} gpu={gpu} />
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function GpuCard(props: { node: Node; gpu: Gpu }) {
  const words = useWords();
  const { gpu, node } = props;
  const throttled = (gpu.throttle_reasons ?? []).filter((reason) => reason !== "gpu_idle");
  return (
    <>
      <div class="head">
        <h3>{gpu.name}</h3>
        <span class={gpu.healthy ? "badge succeeded" : "badge failed"}>
          <span class="dot" aria-hidden="true" />
          {gpu.healthy ? words.overview.healthy : gpu.reason}
        </span>
      </div>
      <p class="hint">
        {node.host} · {gpu.mig_parent === null ? gpu.index : `${gpu.index}.${gpu.mig_index}`} · <code>{gpu.uuid.slice(0, 12)}</code>
      </p>
      <div class="pair">
        <span>{words.overview.busy}</span>
        <span>{percent(gpu.utilization)}</span>
      </div>
      <Meter value={gpu.utilization} label={`${gpu.name}: ${words.overview.busy}`} />
      <div class="pair">
        <span>{words.overview.memory}</span>
        <span>{words.overview.of(bytes(gpu.memory_used_bytes), bytes(gpu.memory_total_bytes))}</span>
      </div>
      <Meter value={part(gpu.memory_used_bytes, gpu.memory_total_bytes)} label={`${gpu.name}: ${words.overview.memory}`} kind="memory" />
      <dl class="facts three">
        <div>
          <dt>{words.overview.temperature}</dt>
          <dd>{gpu.temperature_celsius === null ? "–" : `${gpu.temperature_celsius.toFixed(0)} °C`}</dd>
        </div>
        <div>
          <dt>{words.overview.power}</dt>
          <dd>{gpu.power_watts === null ? "–" : `${gpu.power_watts.toFixed(0)} W`}</dd>
        </div>
        <div>
          <dt>{words.overview.processes}</dt>
          <dd>{gpu.process_count ?? "–"}</dd>
        </div>
      </dl>
      {throttled.length > 0 && (
        <p class="hint">
          {words.overview.throttled} {throttled.join(", ")}
        </p>
      )}
    </>
  );
}

function Nodes(props: { nodes: Node[] }) {
  const words = useWords();
  return (
    <section aria-labelledby="nodes">
      <h2 id="nodes">{words.overview.nodes}</h2>
      <div class="card flush">
        <Wide label={words.overview.nodes}>
          <table>
            <thead>
              <tr>
                <th scope="col">{words.overview.node}</th>
                <th scope="col">{words.overview.cpu}</th>
                <th scope="col">{words.overview.memory}</th>
                <th scope="col">{words.overview.store}</th>
                <th scope="col" class="number">
                  {words.overview.gpus}
                </th>
                <th scope="col" class="number spare">
                  {words.overview.load}
                </th>
                <th scope="col" class="number spare">
                  {words.overview.heartbeat}
                </th>
              </tr>
            </thead>
            <tbody>
              {props.nodes.map((node) => (
                <tr key={node.node_id}>
                  <td>
                    {node.host} <code class="id">{node.node_id.slice(0, 8)}</code>{" "}
                    {!node.alive && <span class="badge failed">{words.overview.gone}</span>}
                  </td>
                  <td>
                    <Cell value={node.cpu_fraction} text={percent(node.cpu_fraction)} label={`${node.host}: ${words.overview.cpu}`} />
                  </td>
                  <td>
                    <Cell
                      value={part(used(node), node.host_memory_total_bytes)}
                      text={words.overview.of(bytes(used(node)), bytes(node.host_memory_total_bytes))}
                      label={`${node.host}: ${words.overview.memory}`}
                      kind="memory"
                    />
                  </td>
                  <td>
                    <Cell
                      value={part(node.store_used_bytes, node.store_total_bytes)}
                      text={words.overview.of(bytes(node.store_used_bytes), bytes(node.store_total_bytes))}
                      label={`${node.host}: ${words.overview.store}`}
                      kind="store"
                    />
                  </td>
                  <td class="number">{node.gpus.length}</td>
                  <td class="number spare">{node.load === null ? "–" : node.load.toFixed(2)}</td>
                  <td class="number spare">{seconds(node.heartbeat_age_seconds)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Wide>
      </div>
    </section>
  );
}

function Cell(props: { value: number | null; text: string; label: string; kind?: string }) {
  return (
    <div class="cell">
      <span>{props.text}</span>
      <Meter value={props.value} label={props.label} kind={props.kind} />
    </div>
  );
}

const used = (node: Node): number | null =>
  node.host_memory_total_bytes === null || node.host_memory_free_bytes === null ? null : node.host_memory_total_bytes - node.host_memory_free_bytes;

const part = (some: number | null, all: number | null): number | null => (some === null || !all ? null : some / all);

function mean(values: (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

const short = (value: number): string => String(Math.round(10 * value) / 10);
