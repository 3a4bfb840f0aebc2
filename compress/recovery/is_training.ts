/** Whether a recovery can be ended with something to keep. Light: a server's start loads it. */
import type { CompressProgress } from "../types.ts";

/**
 * From the first step's loss to the end of the phase: before it there is no best so far.
 * @param before what was answered of the report before
 */
export const isTraining = ({ phase, loss }: CompressProgress, before: boolean): boolean =>
  phase === "recover" && (before || loss !== undefined);
