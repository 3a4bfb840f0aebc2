/** `families`: what checkpoints can be opened. */
import { familiesMarkdown, familyRows } from "../models/families/table.ts";
import { print, printResult, table } from "./output.ts";

export interface FamiliesCommandOptions {
  readonly json?: boolean;
  readonly markdown?: boolean;
}

export function familiesCommand({ json, markdown }: FamiliesCommandOptions): void {
  if (markdown) return print(familiesMarkdown());
  const rows = familyRows();
  printResult(rows, {
    json,
    lines: () =>
      table([
        ["family", "models", "model_type", "GGUF"],
        ...rows.map((r) => [r.family, r.models, r.model_types.join(", "), r.gguf]),
      ]),
  });
}
