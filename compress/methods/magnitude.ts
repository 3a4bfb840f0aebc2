/** Magnitude pruning: an entry is worth its absolute value. */
import { matrix } from "../linalg/matrix.ts";
import { type CompressionMethod, maskedEntries, noLowRank } from "./method.ts";

export const magnitude: CompressionMethod = {
  name: "magnitude",
  rankRatio: () => 0,
  needs: () => "nothing",
  prepare: ({ d }) =>
    Promise.resolve({
      compress({ W }, { choice }) {
        const mask = choice.ofMatrix(matrix(W.rows, W.cols, W.data.map(Math.abs)));
        return Promise.resolve({ S: maskedEntries(W, mask, d), ...noLowRank(W), mask });
      },
    }),
};
