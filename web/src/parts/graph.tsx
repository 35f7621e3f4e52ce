// The graphs of a job in small: stages from left to right, and what passes between them.

import { useMemo } from "preact/hooks";
import { count, shortName } from "../data/numbers";
import type { GraphShape } from "../data/types";
import { useWords } from "../words";
import { Wide } from "./fields";

const MOST_GRAPHS = 12;
const WIDTH = 168;
const HEIGHT = 46;
const GAP_X = 64;
const GAP_Y = 16;

export function Graphs(props: { graphs: GraphShape[] }) {
  const words = useWords();
  if (props.graphs.length === 0) return <p class="empty">{words.graph.none}</p>;
  return (
    <div class="graphs">
      {props.graphs.slice(0, MOST_GRAPHS).map((graph, number) => (
        <section key={number}>
          <h3>{words.graph.title(number + 1, count(graph.tasks))}</h3>
          {graph.left_out ? <p class="hint">{words.graph.tooLarge(graph.left_out)}</p> : <Drawn graph={graph} number={number + 1} />}
        </section>
      ))}
      {props.graphs.length > MOST_GRAPHS && <p class="hint">{words.graph.more(props.graphs.length - MOST_GRAPHS)}</p>}
    </div>
  );
}

interface Place {
  x: number;
  y: number;
}

/** Each stage in the column of its depth, near those that it takes from. */
function layOut(graph: GraphShape): { places: Place[]; width: number; height: number } {
  const columns: number[][] = [];
  graph.stages.forEach((stage, number) => (columns[stage.depth] ??= []).push(number));
  const takes = new Map<number, number[]>();
  for (const link of graph.links) takes.set(link.target, [...(takes.get(link.target) ?? []), link.source]);
  const order: number[] = [];
  const most = Math.max(...columns.map((column) => column?.length ?? 0));
  const places: Place[] = [];
  columns.forEach((column, depth) => {
    const wish = (number: number): number => {
      const sources = takes.get(number) ?? [];
      return sources.length ? sources.reduce((sum, source) => sum + order[source]!, 0) / sources.length : number;
    };
    column.sort((a, b) => wish(a) - wish(b));
    const top = ((most - column.length) * (HEIGHT + GAP_Y)) / 2;
    column.forEach((number, at) => {
      places[number] = { x: depth * (WIDTH + GAP_X) + 2, y: top + at * (HEIGHT + GAP_Y) + 2 };
      order[number] = top / (HEIGHT + GAP_Y) + at;
    });
  });
  return { places, width: columns.length * (WIDTH + GAP_X) - GAP_X + 4, height: most * (HEIGHT + GAP_Y) - GAP_Y + 4 };
}

function Drawn(props: { graph: GraphShape; number: number }) {
  const words = useWords();
  const { graph } = props;
  const { places, width, height } = useMemo(() => layOut(graph), [graph]);
  const label = words.graph.label(count(graph.tasks), count(graph.stages.length));
  const title = words.graph.title(props.number, count(graph.tasks));
  return (
    <>
      <Wide label={title}>
        <svg class="graph" width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={label}>
          {graph.links.map((link) => {
            const from = places[link.source]!;
            const end = places[link.target]!;
            const [x1, y1, x2, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, end.x, end.y + HEIGHT / 2];
            const middle = (x1 + x2) / 2;
            return (
              <path
                key={`${link.source}-${link.target}`}
                d={`M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`}
                stroke-width={Math.min(6, 1 + Math.log10(link.count))}
              />
            );
          })}
          {graph.stages.map((stage, number) => {
            const { x, y } = places[number]!;
            return (
              <g key={number} transform={`translate(${x} ${y})`}>
                <title>{stage.name}</title>
                <rect width={WIDTH} height={HEIGHT} rx={6} />
                <text x={10} y={19}>
                  {cut(shortName(stage.name))}
                </text>
                <text x={10} y={36} class="faint">
                  {`× ${count(stage.tasks)}`}
                </text>
              </g>
            );
          })}
        </svg>
      </Wide>
      <details>
        <summary>{words.graph.asTable}</summary>
        <Wide label={`${title}: ${words.graph.asTable}`}>
          <table>
            <thead>
              <tr>
                <th scope="col">{words.graph.stage}</th>
                <th scope="col" class="number">
                  {words.graph.depth}
                </th>
                <th scope="col" class="number">
                  {words.graph.tasks}
                </th>
                <th scope="col">{words.graph.takes}</th>
              </tr>
            </thead>
            <tbody>
              {graph.stages.map((stage, number) => (
                <tr key={number}>
                  <td>
                    <code>{stage.name}</code>
                  </td>
                  <td class="number">{stage.depth}</td>
                  <td class="number">{count(stage.tasks)}</td>
                  <td>
                    {graph.links
                      .filter((link) => link.target === number)
                      .map((link) => `${graph.stages[link.source]!.name} × ${count(link.count)}`)
                      .join(", ")}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Wide>
      </details>
    </>
  );
}

const cut = (name: string): string => (name.length > 22 ? `${name.slice(0, 21)}…` : name);
