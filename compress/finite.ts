/** Numbers that nothing can be computed from are refused by name, before they spread. */
import { OatmillError } from "../errors.ts";
import type { Checkpoint, WeightRole } from "../models/checkpoint.ts";
import { encoderTensors } from "../models/pack_dense.ts";
import { inputKind, type InputName, LINEAR_INPUT, LINEAR_NAMES } from "../models/spec.ts";
import { readBlock } from "./forward/dense_forward.ts";
import type { BlockStatistics } from "./statistics.ts";

/**
 * Reads every weight once, since reading refuses NaN and infinity: the last block's are met before the first one's hours
 * (0.6 s for the 135 million weights of SmolLM2).
 *
 * @param onBlock called before each block; what it throws ends the check
 * @throws {OatmillError} non_finite_weights, and what reading throws
 */
export async function checkWeights(checkpoint: Checkpoint, onBlock: () => void): Promise<void> {
  for (let i = 0; i < checkpoint.spec.blocks; i++) {
    onBlock();
    await readBlock(checkpoint, i);
  }
  const tables: WeightRole[] = ["embedding", "positions", "finalNorm", "finalNorm.bias"];
  tables.push(...encoderTensors(checkpoint.spec).map(({ role }) => role));
  if (!checkpoint.spec.tiedEmbeddings) tables.push("head");
  for (const name of tables) if (checkpoint.has(name)) await checkpoint.read(name);
}

/** @throws {OatmillError} non_finite_activations, with the block, the input and the column */
export function checkStatistics(statistics: BlockStatistics | null, block: number): BlockStatistics | null {
  for (const [input, { d, H }] of Object.entries(statistics ?? {})) {
    const column = d.findIndex((x) => !Number.isFinite(x));
    // What is finite in d may overflow where it is squared.
    const moment = H && column < 0 ? H.findIndex((x) => !Number.isFinite(x)) : -1;
    if (column < 0 && moment < 0) continue;
    const readers = LINEAR_NAMES.filter((name) => LINEAR_INPUT[name] === inputKind(input as InputName)).join(
      ", ",
    );
    throw new OatmillError(
      "non_finite_activations",
      `Cannot calibrate block ${block}: column ${
        column < 0 ? moment % d.length : column
      } of input "${input}" ` +
        `(of ${readers}) is NaN, infinite or too large to be squared; the model overflows on this calibration text`,
    );
  }
  return statistics;
}
