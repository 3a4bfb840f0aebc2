/** A chart's properties as uPlot has them. */
import uPlot from "uplot";
import type { ChartProps } from "./chart.tsx";
import { digits } from "./format.ts";

export const HEIGHT = 200;
/** Of console.css: `--c0` to `--c7`. */
export const COLORS = 8;
/** Beyond as many series as there are colours. */
const DASHES: readonly (readonly number[])[] = [[], [6, 3], [2, 3], [10, 3, 2, 3]];
/** More points than this are a line without dots. */
const MAX_DOTS = 48;
const WHOLE_STEPS = [1, 2, 5].flatMap((n) => [1, 10, 100, 1000].map((ten) => n * ten)).sort((a, b) => a - b);

export function plotData({ x, series, logarithmic }: ChartProps): uPlot.AlignedData {
  const positive = (v: number | null) => v !== null && v > 0 ? v : null; // others have no logarithm
  return [[...x.values], ...series.map(({ values }) => logarithmic ? values.map(positive) : [...values])];
}

/** @param onPoint hears the index of the x under the pointer */
export function plotOptions(
  props: ChartProps,
  element: HTMLElement,
  onPoint: (index: number | null) => void,
): uPlot.Options {
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false } },
    scales: { x: scaleX(props), y: scaleY(props) },
    axes: axes(props, element),
    series: [{}, ...props.series.map((_, i) => seriesOptions(props, i, element))],
    hooks: { setCursor: [(plot) => onPoint(plot.cursor.idx ?? null)] },
  };
}

function scaleX({ kind, rangeX }: ChartProps): uPlot.Scale {
  const bars = (least: number, most: number): [number, number] => [least - 0.6, most + 0.6];
  const range = kind === "bars" ? bars : rangeX;
  return { time: false, ...range ? { range: (_, least, most) => range(least ?? 0, most ?? 0) } : {} };
}

/** A little air, and something to see where all values are the same. */
function scaleY({ kind, logarithmic, leastTop = kind === "bars" ? 0 : undefined }: ChartProps): uPlot.Scale {
  if (logarithmic) return { distr: 3 };
  return {
    range: (_, least, most) => {
      const low = leastTop === undefined ? least ?? 0 : Math.min(0, least ?? 0);
      const high = Math.max(most ?? 0, leastTop ?? -Infinity);
      const air = (high - low || Math.abs(high) || 1) * 0.06;
      return [low === 0 ? 0 : low - air, high + air];
    },
  };
}

function axes({ format = digits, formatX = digits, wholeX, logarithmic }: ChartProps, element: HTMLElement) {
  const [ink, line] = [color(element, "--muted"), color(element, "--line")];
  const lines = { stroke: line, width: 1 };
  const common = { stroke: ink, grid: lines, ticks: lines, font: "12px system-ui, sans-serif" };
  const x: uPlot.Axis = {
    ...common,
    size: 28,
    space: 48,
    values: (_, ticks) => ticks.map((tick) => formatX(tick)),
    ...wholeX ? { incrs: WHOLE_STEPS } : {},
  };
  const y: uPlot.Axis = {
    ...common,
    size: 64,
    space: 32,
    values: (_, ticks) => ticks.map((tick) => tick === null ? "" : format(tick)),
    ...logarithmic
      ? { grid: { ...lines, filter: powersOfTen }, ticks: { ...lines, filter: powersOfTen } }
      : {},
  };
  return [x, y];
}

const powersOfTen = (_: uPlot, ticks: number[]): (number | null)[] =>
  ticks.map((tick) => Math.abs(Math.log10(tick) - Math.round(Math.log10(tick))) < 1e-6 ? tick : null);

function seriesOptions({ kind, series }: ChartProps, index: number, element: HTMLElement): uPlot.Series {
  const stroke = color(element, `--c${index % COLORS}`), { label, values } = series[index];
  const bars = { paths: uPlot.paths.bars!({ size: [0.7, 40] }), points: { show: false }, fill: stroke };
  const line = {
    dash: [...DASHES[Math.floor(index / COLORS) % DASHES.length]],
    points: { show: values.length <= MAX_DOTS, size: 5, fill: stroke },
  };
  return { label, stroke, width: 1.5, ...kind === "bars" ? bars : line };
}

/** What a custom property is in the present theme: a canvas knows no properties. */
function color(element: HTMLElement, property: string): string {
  const probe = element.appendChild(document.createElement("i"));
  probe.style.color = `var(${property})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
