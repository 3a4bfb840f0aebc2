/**
 * Worker side of distillation on next tokens: some sequences forward through all blocks, whose inputs and products
 * are kept, the divergence from the dense model's answers, and back through all blocks.
 */
import type { LinalgRuntime, Tensor } from "../linalg/runtime.ts";
import { blockSpec, type ModelSpec } from "../../models/spec.ts";
import { openValues, type Place } from "../work_space.ts";
import { BlockPass, CHUNK_TOKENS, type KeptProducts, type Rows, type SequenceLoss } from "./block_pass.ts";
import type { Buffers } from "./buffers.ts";
import { type HeadParameters, HeadPass } from "./head_pass.ts";
import type { LayerContext } from "./layer_gradient.ts";
import type { BlockParameters, SharedFloats } from "./parameters.ts";

export interface DistillJob {
  readonly kind: "distill";
  readonly spec: ModelSpec;
  readonly blocks: readonly BlockParameters[];
  readonly head: HeadParameters;
  /** `[sequences, length, hidden]`, embedded. */
  readonly x: SharedFloats;
  readonly length: number;
  /** The dense model's last hidden states, `[all sequences, length, hidden]`, and which of them these are. */
  readonly targets: Place;
  readonly sequences: readonly number[];
  /** Where gradients are summed, from 0: of each block, then of the final norm's weight and bias; null: the loss alone. */
  readonly gradients: readonly SharedFloats[] | null;
}

export async function runDistill(
  job: DistillJob,
  linalg: LinalgRuntime,
  buffers: Buffers,
): Promise<SequenceLoss> {
  const run = new DistillRun(job, { linalg, buffers });
  for (const sum of job.gradients ?? []) sum.fill(0);
  const together = Math.max(1, Math.floor(CHUNK_TOKENS / job.length));
  let loss = 0;
  for (let from = 0; from < job.sequences.length; from += together) {
    loss += await run.chunk(from, Math.min(job.sequences.length, from + together));
  }
  return { loss, forwardMs: run.forwardMs, gradientMs: run.gradientMs };
}

/** What a forward pass leaves for the way back. */
interface Passed {
  /** Inputs of all blocks, and behind them the last one's output. */
  readonly states: readonly Tensor[];
  readonly kept: readonly KeptProducts[];
}

class DistillRun {
  forwardMs = 0;
  gradientMs = 0;

  constructor(readonly job: DistillJob, readonly context: LayerContext) {}

  /** Sequences from..to-1; @returns their summed loss */
  async chunk(from: number, to: number): Promise<number> {
    const { job } = this, { length, spec: { hiddenSize } } = job;
    const rows = { sequences: to - from, length };
    const start = performance.now(), passed = await this.#forward(from, rows), forward = performance.now();
    const targets = this.#targets(from, to);
    const dy = job.gradients && this.context.buffers.tensor("dy", [rows.sequences * length, hiddenSize]);
    const loss = await new HeadPass(job.head, job.spec, this.context).run(
      { x: passed.states[job.blocks.length], t: targets, dx: dy },
      job.gradients?.slice(job.blocks.length) ?? [],
    );
    if (dy) await this.#backward(passed, dy, rows);
    this.forwardMs += forward - start;
    this.gradientMs += performance.now() - forward;
    return loss;
  }

  async #forward(from: number, rows: Rows): Promise<Passed> {
    const { spec, blocks, x, gradients } = this.job, { buffers } = this.context;
    const tokens = rows.sequences * rows.length,
      shape = [tokens, spec.hiddenSize],
      size = tokens * spec.hiddenSize;
    const at = from * rows.length * spec.hiddenSize;
    const kept: KeptProducts[] = [], states = [buffers.copy("x.0", x.subarray(at, at + size), shape)];
    for (const [i, parameters] of blocks.entries()) {
      // Without a way back two states are enough.
      const y = buffers.tensor(`x.${gradients ? i + 1 : (i + 1) % 2}`, shape);
      const block = await BlockPass.open(blockSpec(spec, i), parameters, this.context);
      kept.push(await block.forward(states[i], y, rows, gradients && `kept.${i}`));
      states.push(y);
    }
    return { states, kept };
  }

  /** Reads the chunk's rows. */
  #targets(from: number, to: number): Tensor {
    const { targets, sequences, length, spec: { hiddenSize } } = this.job, size = length * hiddenSize;
    const t = this.context.buffers.tensor("t", [(to - from) * length, hiddenSize]);
    using source = openValues(targets);
    for (let s = from; s < to; s++) {
      source.read(sequences[s] * size, t.data.subarray((s - from) * size, (s - from + 1) * size));
    }
    return t;
  }

  async #backward({ states, kept }: Passed, dy: Tensor, rows: Rows): Promise<void> {
    const { spec, blocks, gradients } = this.job, { buffers } = this.context;
    let d = dy;
    for (let i = blocks.length - 1; i >= 0; i--) {
      const block = await BlockPass.open(blockSpec(spec, i), blocks[i], this.context);
      // The output's gradient may not be the input's place.
      const dx = i > 0 ? buffers.tensor(d === dy ? "dx" : "dy", dy.shape) : null;
      await block.backward({ x: states[i], kept: kept[i], dy: d, dx }, gradients![i], rows);
      if (dx) d = d === dy ? dx : dy;
    }
  }
}
