/** How far an artifact's answers are from the dense model's, for people. */
import type { Agreement } from "../models/formats/artifact_header.ts";

/** @param agreement of a graph or an encoder */
export function agreementLines(agreement: Agreement | null | undefined): string[] {
  if (!agreement) return [];
  const errors = agreement.outputs.map(({ name, error }) => `${name} ${(100 * error).toFixed(2)} %`).join(
    ", ",
  );
  const labels = agreement.sameLabel === null
    ? ""
    : `, the same label for ${(100 * agreement.sameLabel).toFixed(1)} %`;
  return [`off by       ${errors}${labels} (${agreement.inputs} inputs ${agreement.text})`];
}
