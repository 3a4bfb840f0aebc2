/** Wanda (arXiv 2306.11695): an entry is worth |W_ij| ||X_j||_2, compared within its row. */
import { scaleColumns, unitSized } from "../linalg/matrix.ts";
import { type CompressionMethod, maskedEntries, noLowRank } from "./method.ts";

export const wanda: CompressionMethod = {
  name: "wanda",
  rankRatio: () => 0,
  needs: () => "scales",
  prepare(inputs) {
    const d = unitSized(inputs.d);
    return Promise.resolve({
      compress({ W }, { choice }) {
        const scores = scaleColumns(W, d);
        for (let i = 0; i < scores.data.length; i++) scores.data[i] = Math.abs(scores.data[i]);
        const mask = choice.ofMatrix(scores);
        return Promise.resolve({ S: maskedEntries(W, mask, d), ...noLowRank(W), mask });
      },
    });
  },
};
