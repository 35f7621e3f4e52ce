// E, L, D and F of a job, each with a word on what it means.

import { count, seconds } from "../data/numbers";
import type { Metrics } from "../data/types";
import { useWords } from "../words";
import { Facts } from "./fields";

export const FIGURES = ["efficiency", "imbalance", "decomposition", "recovery"] as const;
export type Figure = (typeof FIGURES)[number];

/** How far from the best value a figure is, 0 to 1. */
export function shortfall(figure: Figure, value: number): number {
  const far = figure === "imbalance" ? value : Math.abs(1 - value);
  return Math.min(1, Math.max(0, far));
}

export function Figures(props: { metrics: Metrics }) {
  const words = useWords();
  const { metrics } = props;
  return (
    <>
      <ul class="figures">
        {FIGURES.map((figure) => {
          const [letter, name, meaning] = words.job.figures[figure];
          const value = metrics[figure];
          return (
            <li key={figure} class="card">
              <div class="head">
                <h2>
                  <b>{letter}</b> {name}
                </h2>
                <span class="now">{value.toFixed(value < 10 ? 3 : 1)}</span>
              </div>
              <div class="quality" aria-hidden="true">
                <div style={{ width: `${100 * (1 - shortfall(figure, value))}%` }} />
              </div>
              <p>{meaning}</p>
            </li>
          );
        })}
      </ul>
      <Facts
        facts={[
          [words.job.more.makespan, seconds(metrics.makespan_seconds)],
          [words.job.more.busy, seconds(metrics.busy_seconds)],
          [words.job.more.mean, seconds(metrics.mean_task_seconds)],
          [words.job.more.slots, count(metrics.slots)],
        ]}
      />
    </>
  );
}
