/** Latency and tokens/s of loads over their time, several in one chart. */
import { Chart, type ChartProps } from "./chart.tsx";
import { digits } from "./format.ts";
import { describeLoad } from "./load_table.tsx";
import type { Load } from "./types.ts";

type Sample = Load["progress"][number];
const STEP_S = 0.5;
const ms = (value: number): string => `${digits(value)} ms`;

export function LoadCharts({ runs }: { readonly runs: readonly Load[] }) {
  const charts: readonly (Pick<ChartProps, "title" | "about" | "format"> & {
    lines: readonly (readonly [name: string, value: (sample: Sample) => number | null])[];
  })[] = [
    {
      title: "Tokens a second",
      about: "Of all answers, since the measurement began",
      format: digits,
      lines: [["", (s) => s.output_tokens_per_second]],
    },
    {
      title: "Time to first token",
      about: "Percentiles of all requests so far",
      format: ms,
      lines: [["p50", (s) => s.ttft_p50_ms], ["p99", (s) => s.ttft_p99_ms]],
    },
    { title: "Requests in flight", format: digits, lines: [["", (s) => s.in_flight]] },
  ];
  const times = gridOf(runs);
  return (
    <div class="charts three">
      {charts.map(({ lines, ...chart }) => (
        <Chart
          key={chart.title}
          {...chart}
          x={{ label: "Seconds", values: times }}
          leastTop={1}
          series={runs.flatMap((run, i) =>
            lines.map(([name, value]) => ({
              label:
                [runs.length > 1 ? `${i + 1}: ${describeLoad(run)}` : "", name].filter(Boolean).join(" ") ||
                "now",
              values: sampled(run, times, value),
            }))
          )}
        />
      ))}
    </div>
  );
}

const measured = ({ progress }: Load): Sample[] => progress.filter(({ warming_up }) => !warming_up);

/** Seconds that all runs are shown at: they were told at moments of their own. */
function gridOf(runs: readonly Load[]): number[] {
  const longest = Math.max(0, ...runs.map((run) => measured(run).at(-1)?.seconds ?? 0));
  return Array.from({ length: Math.floor(longest / STEP_S) + 1 }, (_, i) => i * STEP_S);
}

/** The last that was told before each moment; nothing after the run's end. */
function sampled(
  run: Load,
  times: readonly number[],
  value: (s: Sample) => number | null,
): (number | null)[] {
  const samples = measured(run), end = samples.at(-1)?.seconds ?? -1;
  let at = -1;
  return times.map((time) => {
    while (at + 1 < samples.length && samples[at + 1].seconds <= time) at++;
    return at < 0 || time > end + STEP_S ? null : value(samples[at]);
  });
}
