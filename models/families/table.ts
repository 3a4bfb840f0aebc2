/** The families as the README's table: whatever the registry holds, in its order. */
import { FAMILIES } from "./registry.ts";

export interface FamilyRow {
  readonly family: string;
  readonly models: string;
  /** `model_type` values of config.json. */
  readonly model_types: readonly string[];
  /** `general.architecture` of GGUF files; null: not read from GGUF. */
  readonly gguf: string | null;
}

export const familyRows = (): FamilyRow[] =>
  FAMILIES.map(({ name, models, modelTypes, gguf }) => ({
    family: name,
    models,
    model_types: modelTypes,
    gguf: gguf?.architecture ?? null,
  }));

const HEADER = ["models", "`model_type`", "GGUF"] as const;

/** The rows as a Markdown table, in columns of equal width as the formatter leaves them. */
export function familiesMarkdown(rows: readonly FamilyRow[] = familyRows()): string {
  const code = (text: string) => `\`${text}\``;
  const cells = rows.map((r) => [r.models, r.model_types.map(code).join(", "), r.gguf ? code(r.gguf) : ""]);
  const widths = HEADER.map((name, i) => Math.max(name.length, ...cells.map((row) => row[i].length)));
  const line = (row: readonly string[], fill = " ") =>
    `| ${row.map((cell, i) => cell.padEnd(widths[i], fill)).join(" | ")} |`;
  return [line(HEADER), line(HEADER.map(() => ""), "-"), ...cells.map((row) => line(row))].join("\n");
}
