// Lines over time, drawn by uPlot.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { color, onTheme } from "./theme";

export interface Series {
  name: string;
  color: string;
  values: (number | null)[];
}

const HEIGHT = 120;
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
/** Steps of an axis of bytes. */
export const BYTES = Array.from({ length: 50 }, (_, power) => 2 ** power);

export function Chart(props: {
  label: string;
  times: number[];
  series: Series[];
  top: number;
  format: (value: number) => string;
  /** What marks of the vertical axis may be apart. */
  steps?: number[];
}) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const names = props.series.map((one) => one.name).join("\n");
  const data = [props.times, ...props.series.map((one) => one.values)] as uPlot.AlignedData;
  const newest = useRef(props);
  newest.current = props;

  useEffect(() => {
    const place = box.current!;
    const draw = (): void => {
      plot.current?.destroy();
      const { series, format, steps } = newest.current;
      const axis = { stroke: color("faint"), grid: { stroke: color("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
      plot.current = new uPlot(
        {
          width: Math.max(place.clientWidth, 50),
          height: HEIGHT,
          cursor: { y: false, drag: { x: false, y: false }, points: { size: 5 } },
          legend: { show: false },
          padding: [8, 8, 0, 0],
          scales: { y: { range: () => [0, newest.current.top || 1] } },
          axes: [
            { ...axis, size: 22, space: 70, incrs: SECONDS, values: (_, marks) => marks.map(clockOf) },
            { ...axis, size: 52, space: 32, ...(steps === undefined ? {} : { incrs: steps }), values: (_, marks) => marks.map(format) },
          ],
          series: [
            {},
            ...series.map((one) => ({
              stroke: color(one.color),
              width: 1.5,
              fill: series.length === 1 ? color(`${one.color}-fill`) : undefined,
              points: { show: false },
              spanGaps: false,
            })),
          ],
        },
        [newest.current.times, ...newest.current.series.map((one) => one.values)] as uPlot.AlignedData,
        place,
      );
    };
    draw();
    const end = onTheme(draw);
    const watch = new ResizeObserver(() => plot.current?.setSize({ width: Math.max(place.clientWidth, 50), height: HEIGHT }));
    watch.observe(place);
    return () => {
      end();
      watch.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [names]);

  useEffect(() => plot.current?.setData(data), [props.times, props.series]);

  return <div class="chart" role="img" aria-label={props.label} ref={box} />;
}

const clockOf = (time: number): string => new Date(1000 * time).toTimeString().slice(0, 8);
