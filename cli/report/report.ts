/**
 * What is known of a model as one HTML file: no network, no script, readable in the dark, with a table beside every
 * chart. Names come from files that anybody may have made: all text is escaped (hono/html), and the page forbids scripts.
 */
import { html, raw } from "hono/html";
import type { ModelSpec } from "../../models/spec.ts";
import { type Cell, type Inspected, type Section, sections } from "./sections.ts";

export interface ReportInput extends Inspected {
  readonly name: string;
  readonly spec: ModelSpec;
  readonly parameters: number;
}

const STYLE = `
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2rem auto; padding: 0 1rem; color: CanvasText; background: Canvas; }
h1 { font-size: 1.6rem; margin-bottom: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 0.25rem; }
p { margin: 0.25rem 0 0.75rem; max-width: 70ch; }
figure { margin: 0; }
section > figure > figure, section > figure > svg { display: inline-block; vertical-align: top; max-width: 100%; }
section > figure > figure { margin: 0 1rem 0.5rem 0; }
figure img { display: block; max-width: 100%; } figcaption { font-size: 0.85rem; }
figure h2, figure h3 { font-size: 0.9rem; margin: 0.5rem 0 0; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.1rem 0.75rem 0.1rem 0; text-align: left; border-bottom: 1px solid color-mix(in srgb, CanvasText 15%, transparent); overflow-wrap: break-word; max-width: 30rem; }
td.number, th.number { text-align: right; white-space: nowrap; }
details { margin-top: 0.5rem; } details > div { max-height: 24rem; overflow: auto; }
summary { cursor: pointer; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.85rem; }
`;

/** Forbids everything but the styles and pictures of this page. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

export async function reportHtml(input: ReportInput): Promise<string> {
  const { name, header } = input;
  const page = html`
    <!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width">
        <meta http-equiv="Content-Security-Policy" content="${POLICY}">
        <title>${name} - Oatmill</title>
        <style>${raw(STYLE)}</style>
      </head>
      <body>
        <main>
    <h1>${name}</h1>
    ${table("Model", ["", ""], facts(input))}
    ${header
      ? html`
        <h2>Recipe</h2>
        <pre>${JSON.stringify(header.recipe, null, 1)}</pre>
      `
      : ""}
    ${sections(input).map(sectionHtml)}
        </main>
      </body>
    </html>
  `;
  return (await page).toString();
}

function facts({ spec, parameters, header, insight }: ReportInput): Cell[][] {
  const calibration = insight?.calibration;
  return [
    ["family", `${spec.family} (${spec.architecture})`],
    ["parameters", `${(parameters / 1e6).toFixed(1)} M in ${spec.blocks} blocks of ${spec.hiddenSize}`],
    ...header
      ? [
        [
          "size",
          `${(header.bytes / 1e6).toFixed(1)} MB (dense float16: ${(header.denseBytes / 1e6).toFixed(1)} MB)`,
        ],
        ["made", `${header.created} from ${header.source.file}`],
      ]
      : [],
    ...calibration
      ? [[
        "inputs from",
        `${calibration.sequences} sequences of ${calibration.length} tokens, ${calibration.text}`,
      ]]
      : [],
  ];
}

const sectionHtml = ({ title, about, charts, head, rows }: Section) =>
  html`
    <section>
      <h2>${title}</h2>
      <p>${about}</p>
      <figure role="group" aria-label="${title}">${raw(charts.join("\n"))}</figure>
      <details>
        <summary>Table: ${title}</summary>
        <div>${table(title, head, rows)}</div>
      </details>
    </section>
  `;

const table = (caption: string, head: readonly string[], rows: readonly (readonly Cell[])[]) =>
  html`<table aria-label="${caption}">
${
    head.some(Boolean)
      ? html`
        <thead>
          <tr>${head.map((h) => html`<th scope="col">${h}</th>`)}</tr>
        </thead>
      `
      : ""
  }
<tbody>
${
    rows.map((row) =>
      html`
        <tr>${row.map(cellHtml)}</tr>
      `
    )
  }</tbody>
</table>`;

const cellHtml = (value: Cell, column: number) =>
  column === 0
    ? html`<th scope="row">${value ?? "-"}</th>`
    : typeof value === "number"
    ? html`<td class="number">${Number.isInteger(value) ? value : value.toPrecision(4)}</td>`
    : html`<td>${value ?? "-"}</td>`;
