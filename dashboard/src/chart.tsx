// A line chart of the last five minutes (uPlot), with its numbers also as text beside it.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

export type Line = { label: string; colour: string; values: (number | null)[]; fill?: boolean };
type Props = { times: number[]; lines: Line[]; unit: string; height: number };

const SPAN_S = 300;
const DARK = matchMedia("(prefers-color-scheme: dark)");

export function Chart({ times, lines, unit, height }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(null);
  const data = [times, ...lines.map((line) => line.values)] as uPlot.AlignedData;
  useEffect(() => {
    const at = host.current!;
    const make = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(lines, unit, at.clientWidth, height), data, at);
    };
    make();
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: at.clientWidth, height }));
    resized.observe(at);
    DARK.addEventListener("change", make);
    return () => {
      DARK.removeEventListener("change", make);
      resized.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, []);
  useEffect(() => plot.current?.setData(data), [times.at(-1), lines[0]?.values.at(-1), lines[1]?.values.at(-1)]);
  return <div class="chart" ref={host} aria-hidden="true" />;
}

function minute(at: number): string {
  return new Date(at * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
}

function options(lines: Line[], unit: string, width: number, height: number): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis: uPlot.Axis = {
    stroke: colour("--quiet"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    font: "12px system-ui, sans-serif",
  };
  return {
    width,
    height,
    legend: { show: false },
    cursor: { show: false },
    padding: [8, 4, 0, 0],
    scales: {
      x: { range: (_, __, last) => [last - SPAN_S, last] },
      y: { range: (_, __, most) => [0, Math.max(1, most * 1.1)] },
    },
    axes: [
      { ...axis, size: 26, space: 70, values: (_, ticks) => ticks.map(minute) },
      { ...axis, size: 58, space: 28, values: (_, ticks) => ticks.map((tick) => `${tick} ${unit}`) },
    ],
    series: [
      {},
      ...lines.map((line): uPlot.Series => ({
        stroke: colour(line.colour),
        width: 2,
        fill: line.fill ? `${colour(line.colour)}30` : undefined,
        spanGaps: true,
        points: { show: true, size: 5, fill: colour(line.colour) },
        paths: uPlot.paths.linear!(),
      })),
    ],
  };
}
