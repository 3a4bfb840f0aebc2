/** What a start of the server took, for people. */
import type { LoadPhase, LoadTimes } from "../engine/load_times.ts";

/** Milliseconds; `importsMs`, `listeningMs` and `readyMs` since Deno's own start. */
export interface StartTimes {
  /** The process and its modules. */
  readonly importsMs: number;
  /** Data folder, database, telemetry, routes. */
  readonly openMs: number;
  readonly listeningMs: number;
  /** Compressing the bundled model, at the first start only. */
  readonly bundledMs: number;
  readonly readyMs: number;
  /** What was loaded before the first request. */
  readonly model: string | null;
  readonly load: LoadTimes | null;
}

/** As in the order of a load; they overlap. */
const PHASES: readonly LoadPhase[] = [
  "header",
  "threads",
  "weights",
  "tokenizer",
  "kernels",
  "tables",
  "ready",
];
/** Below this a phase is not worth a line's room. */
const SHOWN_MS = 1;

/** "Ready 402 ms after the start: ...", and what the model's load took. */
export function startLines(t: StartTimes): string[] {
  const loadMs = t.readyMs - t.listeningMs - t.bundledMs;
  const parts = [
    `process and modules ${ms(t.importsMs)}`,
    `data folder ${ms(t.openMs)}`,
    `listening after ${ms(t.listeningMs)}`,
    ...t.bundledMs >= SHOWN_MS ? [`bundled model ${ms(t.bundledMs)}`] : [],
    ...t.model === null ? [] : [`model ${t.model} ${ms(loadMs)}`],
  ];
  const lines = [`Ready ${ms(t.readyMs)} ms after the start: ${parts.join(", ")}`];
  const { load } = t;
  if (load?.total) {
    const { bytes, parallel } = load.total;
    const rate = (bytes / 1e6 / (load.ms.weights! / 1000)).toFixed(0);
    const phases = PHASES.flatMap((p) => (load.ms[p] ?? 0) >= SHOWN_MS ? [`${p} ${ms(load.ms[p]!)}`] : []);
    const how = parallel ? "read by all threads" : "hashed or packed in one pass";
    lines.push(
      `Model ${t.model}, partly at once: ${phases.join(", ")} (${
        (bytes / 1e6).toFixed(0)
      } MB, ${how}, ${rate} MB/s)`,
    );
  }
  return lines;
}
const ms = (value: number): string => value.toFixed(0);
