/**
 * Opens the models whose paths are its arguments and reads every weight, as compressing or packing would; prints a line of
 * JSON for each. A process of its own, whose memory is theirs alone. Tests only.
 */
import { type ErrorCode, OatmillError } from "../../errors.ts";
import type { Checkpoint, WeightRole } from "../checkpoint.ts";
import { openCheckpoint } from "../open.ts";
import type { LinearName } from "../spec.ts";
import { peakBytes } from "./attacks.ts";

/** What became of one model. */
export interface ReadModel {
  /** Null: it was read. */
  readonly error: { readonly code: ErrorCode; readonly message: string } | null;
  readonly ms: number;
  /** Of the process's peak. */
  readonly grownBytes: number;
  /** Whether all objects have got a property that a file asked for. */
  readonly polluted: boolean;
}

async function readAll(checkpoint: Checkpoint): Promise<void> {
  const { blocks } = checkpoint.spec;
  const names: (LinearName | "attnNorm" | "mlpNorm")[] = [
    "attnNorm",
    "q",
    "k",
    "v",
    "o",
    "mlpNorm",
    "gate",
    "up",
    "down",
  ];
  const roles: WeightRole[] = ["embedding", "finalNorm", "head"];
  for (let b = 0; b < blocks; b++) roles.push(...names.map((name): WeightRole => `block.${b}.${name}`));
  for (const role of roles) await checkpoint.read(role);
}

async function attempt(path: string): Promise<ReadModel["error"]> {
  try {
    const checkpoint = await openCheckpoint(path);
    try {
      await readAll(checkpoint);
    } finally {
      checkpoint.close();
    }
    return null;
  } catch (error) {
    if (error instanceof OatmillError) return { code: error.code, message: error.message };
    throw error;
  }
}

async function measured(path: string): Promise<ReadModel> {
  const start = performance.now(), peak = peakBytes();
  const error = await attempt(path);
  return {
    error,
    ms: performance.now() - start,
    grownBytes: peakBytes() - peak,
    polluted: "polluted" in {},
  };
}

if (import.meta.main) { for (const path of Deno.args) console.log(JSON.stringify(await measured(path))); }
