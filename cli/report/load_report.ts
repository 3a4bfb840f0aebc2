/** What `bench load` found as one page (`page.ts`). Names come from servers: all text is escaped. */
import { html } from "hono/html";
import type { LoadResult } from "../../bench/load/result.ts";
import { loadLines, loadName } from "../bench_load_table.ts";
import { loadSections } from "./load_sections.ts";
import { type Cell, pageHtml, table } from "./page.ts";

export function loadReportHtml(result: LoadResult): Promise<string> {
  const { compare, sweep, model, warnings } = result;
  const title = compare ? `${compare.a.name} against ${compare.b.name}` : `${model} under load`;
  const body = html`
    ${table("Load", ["", ""], facts(result))} ${warnings.map((text) =>
      html`
        <p><strong>Note:</strong> ${text}</p>
      `
    )}
    <details ${sweep || compare ? "" : "open"}>
      <summary>As text</summary>
      <div>
        <pre>${loadLines(result).join("\n")}</pre>
      </div>
    </details>
  `;
  return pageHtml({ title, body, sections: loadSections(result) });
}

const number = (n: number): string => n >= 100 ? n.toFixed(0) : n.toPrecision(3);

function facts(result: LoadResult): Cell[][] {
  const { url, endpoint, load, prompts, seed, requests, duration_s, errors, slo, sweep, compare } = result;
  const levels = Object.entries(slo).map(([kind, ms]) => `${kind} ${ms} ms`).join(", ");
  const shown = sweep ? " (at the knee)" : compare ? " (of A)" : "";
  return [
    ["server", `${url}, ${endpoint}`],
    [`load${shown}`, loadName(load)],
    ["prompts", `${prompts}; seed ${seed}`],
    [`requests${shown}`, `${requests} in ${duration_s.toFixed(1)} s, ${errors} errors`],
    [
      `throughput${shown}`,
      `${number(result.output_tokens_per_second)} output tokens/s, ${
        number(result.requests_per_second)
      } requests/s`,
    ],
    [`goodput${shown}`, `${number(result.goodput)} requests/s${levels ? ` within ${levels}` : ""}`],
    ["made", `${result.made}, Oatmill ${result.oatmill}`],
  ];
}
