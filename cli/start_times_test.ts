import assert from "node:assert/strict";
import { LoadTimes } from "../engine/load_times.ts";
import { startLines } from "./start_times.ts";

const START = {
  importsMs: 190.4,
  openMs: 9,
  listeningMs: 200,
  bundledMs: 0,
  readyMs: 402,
  model: null,
  load: null,
};

Deno.test("startLines() says when the server was ready and what took how long", () => {
  assert.deepEqual(startLines(START), [
    "Ready 402 ms after the start: process and modules 190, data folder 9, listening after 200",
  ]);
  const [first] = startLines({ ...START, bundledMs: 100, readyMs: 500, model: "m" });
  assert.match(first, /^Ready 500 ms .*, bundled model 100, model m 200$/);
});

Deno.test("startLines() gives the parts of a load and its rate, without those that took nothing", () => {
  const load = new LoadTimes();
  load.add("weights", 20);
  load.add("tables", 0.4);
  load.end({ bytes: 5e6, parallel: true });
  const lines = startLines({ ...START, model: "m", load });
  assert.equal(lines[1], "Model m, partly at once: weights 20 (5 MB, read by all threads, 250 MB/s)");
});
