/** Magnitude pruning: an entry is worth its absolute value. */
import { matrix } from "../linalg/matrix.ts";
import type { CompressionMethod } from "./method.ts";

export const magnitude: CompressionMethod = {
  name: "magnitude",
  lowRank: false,
  compress({ W }) {
    return Promise.resolve({
      U: matrix(W.rows, 0),
      V: matrix(0, W.cols),
      scores: matrix(W.rows, W.cols, W.data.map(Math.abs)),
    });
  },
};
