/** Entry of the engine's compute threads: thread 0 leads (engine/leader.ts), the others follow its steps. */
import { bindKernels } from "../kernels/load.ts";
import { Executor } from "./executor.ts";
import { Leader } from "./leader.ts";
import { HEAD_ROWS } from "./segment_map.ts";
import { COMMAND, CONTROL, Waiter } from "./threads.ts";
import { type ReadJob, readPieces } from "./weights_reader.ts";
import type { FromWorker, InitMessage, ToLeader, ToWorker } from "./worker_messages.ts";

const scope = self as unknown as DedicatedWorkerGlobalScope; // the compiler's DOM library types `self` as a window
interface DedicatedWorkerGlobalScope {
  onmessage: ((e: MessageEvent<ToLeader | ToWorker>) => void) | null;
  postMessage(m: FromWorker, transfer?: Transferable[]): void;
  close(): void;
}

let leader: Leader | null = null;

scope.onmessage = ({ data }) => {
  if (data.type === "read") read(data.job);
  else if (data.type === "init") init(data);
  else {
    leader?.receive(data);
    if (data.type === "close") {
      scope.postMessage({ type: "closed" });
      scope.close();
    }
  }
};

scope.postMessage({ type: "up" });

function read(job: ReadJob): void {
  const start = performance.now();
  try {
    readPieces(job);
    scope.postMessage({ type: "done", ms: performance.now() - start });
  } catch (error) {
    scope.postMessage({ type: "failed", message: (error as Error).message });
  }
}

function init(data: InitMessage): void {
  const start = performance.now();
  const kernels = data.memories.map((memory) => bindKernels(data.modules, memory));
  const executor = new Executor({ ...data, kernels });
  if (data.thread === 0) {
    leader = new Leader(data, executor, kernels[data.map.head], (message) => {
      const values = message.type === "events" ? message.events.filter((e) => "values" in e) : [];
      scope.postMessage(message, values.map((e) => e.values.buffer as ArrayBuffer));
    });
  }
  scope.postMessage({ type: "done", ms: performance.now() - start });
  if (data.thread !== 0) follow(data, executor);
}

/** Runs every step that the leader starts, until it says exit. Blocks the thread: helpers get no messages. */
function follow({ memories, map }: InitMessage, executor: Executor): void {
  const control = new Int32Array(memories[0].buffer, map.segments[0].control, 16);
  const waiter = new Waiter(control);
  for (let epoch = 0;; epoch++) {
    waiter.waitWhile(CONTROL.epoch, epoch);
    if (Atomics.load(control, CONTROL.command) === COMMAND.exit) break;
    // Both before the body: after its last barrier the leader may already be writing the next step.
    const rows = Atomics.load(control, CONTROL.rows), outputs = Atomics.load(control, CONTROL.outputs);
    executor.runBody(rows, Atomics.load(control, CONTROL.adapterRuns));
    for (let from = 0; from < outputs; from += HEAD_ROWS) {
      executor.runHead(from, Math.min(HEAD_ROWS, outputs - from));
    }
  }
  scope.close();
}
