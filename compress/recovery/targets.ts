/** The dense model's last hidden states: what distillation on next tokens aims at, whatever weights stay in memory. */
import { embed, type Embedding, readBlock, type Residual, runBlockOver } from "../forward/dense_forward.ts";
import type { Place } from "../work_space.ts";
import type { RecoverRun } from "./types.ts";

/** In the journal, and the name of their file. */
const TARGETS = "recovery.targets";

export type TargetsRun = Pick<
  RecoverRun,
  "checkpoint" | "pool" | "space" | "journal" | "sequences" | "heldOut"
>;

/**
 * One block of the dense model after the other over all sequences, those held out behind the others.
 * @param onBlock hears of each block; false ends it
 * @returns `[sequences, length, hidden]`; null: it was ended
 */
export async function denseTargets(
  run: TargetsRun,
  embedding: Embedding,
  onBlock: (done: number) => boolean,
): Promise<Place | null> {
  const { checkpoint, pool, space, journal, sequences, heldOut } = run;
  const place = (values: number): Place =>
    journal.keeps ? journal.place(TARGETS) : space.place(TARGETS, values);
  if (journal.get(TARGETS)) return place(0);
  const residual = embed(embedding, [...sequences, ...heldOut], place);
  for (let block = 0; block < checkpoint.spec.blocks; block++) {
    if (!onBlock(block)) return null;
    await forwardDense(residual, block, { checkpoint, pool });
  }
  await journal.put(TARGETS, { values: residual.sequences * residual.length });
  return residual.values;
}

/** Replaces hidden states by what a block of the dense model answers. */
export async function forwardDense(
  residual: Residual,
  block: number,
  { checkpoint, pool }: Pick<RecoverRun, "checkpoint" | "pool">,
): Promise<void> {
  await runBlockOver(residual, await readBlock(checkpoint, block), {
    checkpoint,
    pool,
    block,
    collect: false,
    momentSequences: 0,
    write: true,
    sink: false,
  });
}
