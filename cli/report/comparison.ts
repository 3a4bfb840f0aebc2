/** Models side by side (bench/model_report.ts): as a page, and as a table for a README. */
import { html } from "hono/html";
import { type ModelReport, type ModelRow, paretoFront } from "../../bench/model_report.ts";
import { markedBlock, wrapped } from "../markdown_file.ts";
import { type Cell, pageHtml, type Section, table } from "./page.ts";
import { chart, dot, line, text } from "./plot.ts";

const WIDTH = 860, HEIGHT = 320;

const decimals = (n: number, digits: number): string => n.toFixed(digits);
const speed = (n: number): string => n >= 100 ? n.toFixed(0) : n.toPrecision(3);

/** Columns of all tables: what they are called, and what stands in them. */
function columns({ rows, baseline }: ModelReport): readonly (readonly [string, (row: ModelRow) => string])[] {
  const [{ tasks }] = rows;
  const percent = (n: number) => decimals(100 * n, 1);
  return [
    ["model", (r) => r.name],
    ["packed", (r) => `${decimals(r.bytes / 1e6, 1)} MB${r.as_f16 ? " as f16" : ""}`],
    ["perplexity", (r) => decimals(r.perplexity, 2)],
    ...Object.keys(tasks).map((name) =>
      [
        `${name} %`,
        (r: ModelRow) => `${percent(r.tasks[name].accuracy)} ± ${percent(r.tasks[name].standard_error)}`,
      ] as const
    ),
    ["prefill tok/s", (r) => speed(r.speed.prefill)],
    ["decode tok/s", (r) => speed(r.speed.decode)],
    ["streams tok/s", (r) => speed(r.speed.streams)],
    [
      `prefill / decode / streams, ratio to ${baseline}`,
      ({ ratio }) => [ratio.prefill, ratio.decode, ratio.streams].map((n) => decimals(n, 2)).join(" / "),
    ],
    ["compressed in", (r) => r.seconds === null ? "" : `${decimals(r.seconds, 0)} s`],
  ];
}

const conditions = (r: ModelReport): string =>
  `Perplexity of ${r.tokens} tokens of ${r.text} in windows of ${r.window}. Speeds on ${r.threads} threads: prompts of ` +
  `${r.prompt_tokens} tokens, ${r.decode_tokens} tokens decoded, ${r.streams} streams at once; all models took turns, ` +
  `medians of ${r.repeats} rounds, ratios of the same round.${tasksOf(r)}${denseOf(r)}`;

function tasksOf({ rows: [{ tasks }] }: ModelReport): string {
  const counts = Object.entries(tasks).map(([name, { count }]) => `${count} of ${name}`);
  return counts.length === 0
    ? ""
    : ` Accuracy without examples, with its standard error: ${counts.join(", ")}.`;
}
function denseOf({ rows }: ModelReport): string {
  const names = rows.filter(({ as_f16 }) => as_f16).map(({ name }) => name);
  return names.length === 0
    ? ""
    : ` ${names.join(", ")}: computed in f32; the bytes are those of the same weights as f16.`;
}

/** A table as `deno fmt` leaves it, how it was measured, and between marks the command that made it. */
export function comparisonMarkdown(report: ModelReport): string {
  const all = columns(report), { command } = report;
  const cells = [all.map(([name]) => name), ...report.rows.map((r) => all.map(([, value]) => value(r)))]
    .map((row) => row.map((cell) => cell.replaceAll("|", "\\|")));
  const widths = all.map((_, i) => Math.max(3, ...cells.map((row) => row[i].length)));
  const [head, ...body] = cells.map((row) => `| ${row.map((c, i) => c.padEnd(widths[i])).join(" | ")} |`);
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  const table = [head, rule, ...body].join("\n");
  return markedBlock(command ?? "", `${table}\n\n${wrapped(conditions(report))}`);
}

export function comparisonHtml(report: ModelReport): Promise<string> {
  const all = columns(report);
  const body = html`
    <p>${conditions(report)}</p>
    ${report.command === null ? "" : html`<p><code>${report.command}</code></p>`}
    ${table("Models", all.map(([name]) => name), report.rows.map((r) => all.map(([, value]) => value(r))))}
  `;
  return pageHtml({
    title: "Models side by side",
    body,
    sections: AXES.map((axis) => front(report, axis)),
  });
}

interface Axis {
  readonly title: string;
  readonly axis: string;
  /** Less is better. */
  readonly cost: (row: ModelRow) => number;
  readonly better: string;
}
const AXES: readonly Axis[] = [
  { title: "What bytes buy", axis: "packed, MB", better: "smaller", cost: (r) => r.bytes / 1e6 },
  {
    title: "What decode time buys",
    axis: "ms for a token of one generation",
    better: "faster",
    cost: (r) => 1000 / r.speed.decode,
  },
  {
    title: "What prefill time buys",
    axis: "ms for a token of a prompt",
    better: "faster",
    cost: (r) => 1000 / r.speed.prefill,
  },
];

function front(
  report: ModelReport,
  { title, axis, cost, better }: Axis,
): Section {
  const { rows } = report, best = paretoFront(rows, cost);
  const points = rows.map((r, i) => ({
    name: r.name,
    cost: cost(r),
    perplexity: r.perplexity,
    best: best.includes(i),
  }));
  const label = `${title}: perplexity by ${axis}. Not beaten: ${best.map((i) => rows[i].name).join(", ")}`;
  const options = {
    width: WIDTH,
    height: HEIGHT,
    marginLeft: 60,
    marginRight: 130,
    inset: 12,
    x: { label: axis, grid: true },
    y: {
      label: "perplexity",
      type: "log" as const,
      grid: true,
      ticks: 6,
      tickFormat: (n: number) => n.toPrecision(4),
    },
    marks: [
      line(best.map((i) => points[i]), {
        x: "cost",
        y: "perplexity",
        stroke: "#4269d0",
        strokeDasharray: "4 3",
      }),
      dot(points, {
        x: "cost",
        y: "perplexity",
        fill: (p: { best: boolean }) => p.best ? "#4269d0" : "#e08700",
        r: 4,
      }),
      text(points, {
        x: "cost",
        y: "perplexity",
        text: "name",
        dx: 8,
        textAnchor: "start" as const,
        fill: "currentColor",
      }),
    ],
  };
  return {
    title,
    about:
      `Left and down is better. The line joins what no other model beats: none is ${better} and as good.`,
    charts: [chart(label, options)],
    head: ["model", axis, "perplexity", "not beaten"],
    rows: points.map((p): Cell[] => [p.name, p.cost, p.perplexity, p.best ? "yes" : ""]),
  };
}
