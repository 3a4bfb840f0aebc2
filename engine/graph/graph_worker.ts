/** Entry of a graph's threads: thread 0 runs the graph, the others follow its layers. */
/// <reference lib="deno.worker" />
import { OatmillError } from "../../errors.ts";
import { decodeGraph } from "../../models/onnx/open_onnx.ts";
import type { FromGraphThread, ToGraphThread } from "./graph_messages.ts";
import { GraphRunner } from "./graph_runner.ts";
import { followLayers, LayerTeam } from "./layer_team.ts";

let runner: GraphRunner | null = null;
/** Runs one after the other: each has all threads. */
let last: Promise<void> = Promise.resolve();

const post = (message: FromGraphThread, transfer: Transferable[] = []) => self.postMessage(message, transfer);

function fail(id: number | null, error: unknown): void {
  const code = error instanceof OatmillError ? error.code : null;
  post({ type: "error", id, code, message: error instanceof Error ? error.message : String(error) });
}

self.onmessage = ({ data }: MessageEvent<ToGraphThread>) => {
  last = last.then(() => receive(data));
};
post({ type: "up" });

async function receive(message: ToGraphThread): Promise<void> {
  if (message.type === "init") return await init(message);
  if (message.type === "run") return await run(message);
  await runner?.close();
  post({ type: "closed" });
  self.close();
}

async function init({ layers, graph }: ToGraphThread & { type: "init" }): Promise<void> {
  try {
    if (graph) runner = await GraphRunner.load(decodeGraph(graph), new LayerTeam(layers), layers.threads);
    post({ type: "ready" });
  } catch (error) {
    return fail(null, error);
  }
  if (!graph) {
    followLayers(layers);
    self.close();
  }
}

async function run({ id, feeds }: ToGraphThread & { type: "run" }): Promise<void> {
  try {
    const outputs = await runner!.run(feeds);
    post({ type: "result", id, outputs }, Object.values(outputs).map(({ data }) => data.buffer));
  } catch (error) {
    fail(id, error);
  }
}
