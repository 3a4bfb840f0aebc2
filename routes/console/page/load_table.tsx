/** Loads beside each other: what was asked for, and what came out. */
import { digits, integer, percent } from "./format.ts";
import type { Load, LoadSummary } from "./types.ts";

export function describeLoad({ settings: s }: Load): string {
  return `${s.model}, ${s.kind === "closed" ? `${s.concurrency} users` : `${digits(s.rate)}/s`}`;
}

interface Column {
  readonly name: string;
  readonly value: (summary: LoadSummary) => string;
}
const ms = (value: number | undefined): string => value === undefined ? "–" : digits(value);
const COLUMNS: readonly Column[] = [
  { name: "Requests", value: (s) => integer(s.requests) },
  { name: "Errors", value: (s) => integer(s.errors) },
  { name: "Requests/s", value: (s) => digits(s.requests_per_second) },
  { name: "Tokens/s", value: (s) => digits(s.output_tokens_per_second) },
  { name: "TTFT p50, ms", value: (s) => ms(s.ttft_ms?.p50) },
  { name: "p99", value: (s) => ms(s.ttft_ms?.p99) },
  { name: "TPOT p50, ms", value: (s) => ms(s.tpot_ms?.p50) },
  { name: "p99", value: (s) => ms(s.tpot_ms?.p99) },
  {
    name: "Within limits",
    value: (s) =>
      s.slo_attainment === null || Object.keys(s.slo).length === 0 ? "–" : percent(s.slo_attainment),
  },
];

export function LoadTable({ runs, shown, onToggle }: {
  readonly runs: readonly Load[];
  readonly shown: readonly string[];
  readonly onToggle: (id: string) => void;
}) {
  return (
    <section aria-labelledby="runs">
      <h2 id="runs">Runs</h2>
      <table class="cards">
        <thead>
          <tr>
            <th scope="col">Load</th>
            <th scope="col">State</th>
            {COLUMNS.map(({ name }, i) => <th key={i} scope="col" class="number">{name}</th>)}
          </tr>
        </thead>
        <tbody>
          {runs.map((run) => (
            <tr key={run.id}>
              <th scope="row">
                <label>
                  <input type="checkbox" checked={shown.includes(run.id)} onChange={() => onToggle(run.id)} />
                  {" "}
                  {describeLoad(run)}
                </label>
                <small class="muted">
                  {run.settings.input_tokens} + {run.settings.output_tokens} tokens
                </small>
              </th>
              <td data-label="State">
                <span class={`state ${run.status}`}>{run.status}</span>
                {run.error && <small>{run.error}</small>}
              </td>
              {COLUMNS.map(({ name, value }, i) => (
                <td key={i} data-label={name} class="number">
                  {run.result ? value(run.result as LoadSummary) : "–"}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
