/**
 * What is known of a model as one page (`page.ts`). Names come from files that anybody may have made: all text is escaped
 * (hono/html), and the page forbids scripts.
 */
import { html } from "hono/html";
import type { ModelSpec } from "../../models/spec.ts";
import { type Cell, pageHtml, table } from "./page.ts";
import { type Inspected, sections } from "./sections.ts";

export interface ReportInput extends Inspected {
  readonly name: string;
  readonly spec: ModelSpec;
  readonly parameters: number;
}

export function reportHtml(input: ReportInput): Promise<string> {
  const { name, header } = input;
  const body = html`
    ${table("Model", ["", ""], facts(input))} ${header
      ? html`
        <h2>Recipe</h2>
        <pre>${JSON.stringify(header.recipe, null, 1)}</pre>
      `
      : ""}
  `;
  return pageHtml({ title: name, body, sections: sections(input) });
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
