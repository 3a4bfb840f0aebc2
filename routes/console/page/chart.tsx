/** A chart by uPlot, with its numbers as a table for those who read instead of look. */
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { digits } from "./format.ts";
import { COLORS, HEIGHT, plotData, plotOptions } from "./plot_options.ts";

export interface Series {
  readonly label: string;
  /** As long as the chart's x; null: no value there. */
  readonly values: readonly (number | null)[];
}
export interface ChartProps {
  readonly title: string;
  /** What is to be seen, in a sentence. */
  readonly about?: string;
  readonly x: { readonly label: string; readonly values: readonly number[] };
  readonly series: readonly Series[];
  readonly kind?: "line" | "bars";
  /** Of the values. */
  readonly format?: (value: number) => string;
  /** Of x. */
  readonly formatX?: (value: number) => string;
  /** x counts something: no half blocks on its axis. */
  readonly wholeX?: boolean;
  /** What the x axis shows of values in between; default: just them. */
  readonly rangeX?: (least: number, most: number) => [number, number];
  /** The y axis begins at 0 and goes at least so far. */
  readonly leastTop?: number;
  /** A logarithmic y axis, for values that span decades. */
  readonly logarithmic?: boolean;
}

export function Chart(props: ChartProps) {
  const { title, about, series, format = digits } = props;
  const [at, setAt] = useState<number | null>(null);
  const box = useChart(props, setAt);
  return (
    <figure class="chart">
      <figcaption>
        <strong>{title}</strong>
        {about && <span class="muted">{about}</span>}
      </figcaption>
      <div ref={box} class="plot" role="img" aria-label={`${title}: ${summary(props)}`} />
      <ul class="legend" aria-hidden="true">
        {series.map(({ label, values }, i) => (
          <li key={label}>
            <span class={`swatch c${i % COLORS} d${Math.floor(i / COLORS)}`} />
            {label}
            <span class="value">{shown(values, at, format)}</span>
          </li>
        ))}
      </ul>
      <DataTable {...props} />
    </figure>
  );
}

/** What is under the pointer, else the last value. */
function shown(values: Series["values"], at: number | null, format: (v: number) => string): string {
  const value = at === null ? values.findLast((v) => v !== null) : values[at];
  return value === null || value === undefined ? "–" : format(value);
}

function summary({ series, format = digits }: ChartProps): string {
  const parts = series.map(({ label, values }) => {
    const known = values.filter((v) => v !== null);
    if (known.length === 0) return `${label} has no values yet`;
    const [least, most] = [Math.min(...known), Math.max(...known)];
    return `${label} from ${format(least)} to ${format(most)}, last ${format(known.at(-1)!)}`;
  });
  return parts.join("; ");
}

function DataTable({ title, x, series, format = digits, formatX = digits }: ChartProps) {
  const [open, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        Values<span class="sr">{` of ${title}`}</span>
      </summary>
      {open && (
        <div class="scroll" tabIndex={0} role="region" aria-label={`Values of ${title}`}>
          <table>
            <thead>
              <tr>
                <th scope="col" class="number">{x.label}</th>
                {series.map(({ label }) => <th key={label} scope="col" class="number">{label}</th>)}
              </tr>
            </thead>
            <tbody>
              {x.values.map((value, i) => (
                <tr key={value}>
                  <th scope="row" class="number">{formatX(value)}</th>
                  {series.map(({ label, values }) => (
                    <td key={label} class="number">{shown(values, i, format)}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </details>
  );
}

/** Keeps one uPlot in the element it returns a reference for; new values go into the same plot. */
function useChart(props: ChartProps, onPoint: (index: number | null) => void) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const theme = useTheme();
  const shape = JSON.stringify([props.kind, props.series.map((s) => s.label), props.logarithmic, theme]);
  useEffect(() => {
    const element = box.current!;
    plot.current = new uPlot(plotOptions(props, element, onPoint), plotData(props), element);
    const resized = new ResizeObserver(() =>
      plot.current?.setSize({ width: element.clientWidth, height: HEIGHT })
    );
    resized.observe(element);
    return () => {
      resized.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape]);
  useEffect(() => plot.current?.setData(plotData(props)), [props.x.values, props.series]);
  return box;
}

/** Changes when colours do. */
function useTheme(): string {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const read = () => `${document.documentElement.style.colorScheme} ${dark.matches}`;
  const [theme, setTheme] = useState(read);
  useEffect(() => {
    const changed = () => setTheme(read());
    dark.addEventListener("change", changed);
    addEventListener("themechange", changed);
    return () => {
      dark.removeEventListener("change", changed);
      removeEventListener("themechange", changed);
    };
  }, []);
  return theme;
}
