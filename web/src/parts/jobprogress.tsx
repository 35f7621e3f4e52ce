// How far a job is, and how long it may still take.

import { live, useNews, useNow } from "../data/live";
import { count, seconds } from "../data/numbers";
import type { Row } from "../data/types";
import { useWords } from "../words";
import { Progress } from "./fields";

/** Seconds that are left if the rest goes as what is done went; null where nobody can say. */
export function secondsLeft(started: number | null, now: number, done: number, total: number): number | null {
  if (started === null || done <= 0 || total <= done) return null;
  return ((now - started) * (total - done)) / done;
}

export function JobProgress(props: { row: Row; long?: boolean }) {
  const words = useWords();
  const { row } = props;
  const running = row.state === "running";
  useNews("progress");
  const now = useNow(running);
  const known = live.progress.get(row.task_id);
  if (!running) {
    if (row.cached) return <span class="hint">{words.jobs.cached}</span>;
    if (props.long) return null;
    if (row.state === "failed" && row.error !== null) return <span class="why">{row.error.type}</span>;
    const ran = row.started_at === null || row.finished_at === null ? null : row.finished_at - row.started_at;
    return ran === null ? null : <span class="hint cramped">{seconds(ran)}</span>;
  }
  if (known === undefined || known[1] === 0) return <span class="hint">{seconds(Math.max(0, now - (row.started_at ?? now)))}</span>;
  const [done, total] = known;
  const left = secondsLeft(row.started_at, now, done, total);
  const text = props.long ? words.job.progress(count(done), count(total)) : `${count(done)} / ${count(total)}`;
  return (
    <div class="how-far">
      <Progress done={done} total={total} label={`${row.workload}: ${words.jobs.progress}`} />
      <span class="hint">
        {text}
        {left === null ? "" : ` · ${props.long ? words.job.eta(seconds(left)) : words.jobs.left(seconds(left))}`}
      </span>
    </div>
  );
}
