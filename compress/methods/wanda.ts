/** Wanda (arXiv 2306.11695): an entry is worth |W_ij| ||X_j||_2, compared within its row. */
import { matrix, scaleColumns } from "../linalg/matrix.ts";
import type { CompressionMethod } from "./method.ts";

export const wanda: CompressionMethod = {
  name: "wanda",
  lowRank: false,
  compress({ W, d }) {
    const scores = scaleColumns(W, d);
    for (let i = 0; i < scores.data.length; i++) scores.data[i] = Math.abs(scores.data[i]);
    return Promise.resolve({ U: matrix(W.rows, 0), V: matrix(0, W.cols), scores });
  },
};
