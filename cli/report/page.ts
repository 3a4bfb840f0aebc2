/** What every report's page has: one HTML file, no network, no script, readable in the dark, a table beside every chart. */
import { html, raw } from "hono/html";
import { short } from "../output.ts";

export type Cell = string | number | null;

export interface Section {
  readonly title: string;
  /** How to read it. */
  readonly about: string;
  /** Markup of charts. */
  readonly charts: readonly string[];
  readonly head: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
}

/** Markup that is safe to stand in a page: all text in it was escaped (hono/html). */
export type Markup = ReturnType<typeof html>;

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

/** @param body between the heading and the sections */
export async function pageHtml(
  { title, body, sections }: {
    readonly title: string;
    readonly body: Markup;
    readonly sections: readonly Section[];
  },
): Promise<string> {
  const page = html`
    <!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width">
        <meta http-equiv="Content-Security-Policy" content="${POLICY}">
        <title>${title} - Oatmill</title>
        <style>${raw(STYLE)}</style>
      </head>
      <body>
        <main>
    <h1>${title}</h1>
    ${body}
    ${sections.map(sectionHtml)}
        </main>
      </body>
    </html>
  `;
  return (await page).toString();
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

/** The first column names its row; numbers stand to the right. */
export const table = (caption: string, head: readonly string[], rows: readonly (readonly Cell[])[]) =>
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
    ? html`<td class="number">${short(value)}</td>`
    : html`<td>${value ?? "-"}</td>`;
