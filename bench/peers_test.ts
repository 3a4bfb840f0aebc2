import assert from "node:assert/strict";
import type { KernelsChosen } from "../engine/tuning.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { type PeerContext, PeerFiles, PeerUnavailable } from "./_peer_context.ts";
import { requirePackage, startPeer } from "./_peer_process.ts";
import { benchEngine } from "./engine.ts";
import { openPeers } from "./peers.ts";

const TINY = "oracles/gguf/tiny_llama_f32.gguf";

function context(path: string, files: PeerFiles): PeerContext {
  return { path, threads: 1, streams: 2, contextLength: 32, kvTokens: 32, files };
}

oracleTest("openPeers() leaves out what cannot run here, and says why", "oracles/gguf", async () => {
  const path = shared("oracles/gguf/tiny_llama_f32.gguf").pathname;
  // No GGUF file: llama.cpp has nothing to run, whether it is installed or not.
  await using files = new PeerFiles("folder");
  const skipped: string[] = [], chosen: string[] = [];
  const tuning = { autotune: false, onChoice: ({ from }: KernelsChosen) => void chosen.push(from) };
  const peers = await openPeers(
    ["llama.cpp:q4_0", "own:int8", "wllama:q8_0"],
    { ...context(path, files), tuning },
    (m) => skipped.push(m),
  );
  assert.deepEqual(chosen, ["fixed"], "own models run as the one that they are compared with");
  assert.deepEqual(peers.map((p) => [p.name, p.format]), [["oatmill", "dense int8"]]);
  assert.equal(skipped.length, 2);
  assert.match(
    skipped[0],
    /^llama\.cpp:q4_0 is left out: (install it with `npm install|it reads \.gguf files only)/,
  );
  assert.match(skipped[1], /^wllama:q8_0 is left out: /);
  await Promise.all(peers.map((p) => p.close()));
});

Deno.test("a package that is not installed is a reason to leave a peer out", async () => {
  await assert.rejects(requirePackage("no-such-package"), (error: Error) => {
    return error instanceof PeerUnavailable && /npm install --prefix bench\/peer/.test(error.message);
  });
});

Deno.test("a program that does not start is a reason to leave a peer out", async () => {
  const program = { name: "p", format: "f", script: "no_such_script.mjs", args: [] };
  await assert.rejects(startPeer(program), (error: Error) => {
    return error instanceof PeerUnavailable &&
      /^it ended with code 1: Error: .*no_such_script/.test(error.message);
  });
});

oracleTest("PeerFiles writes a format once and removes it in the end", "oracles/gguf", async () => {
  let written: string;
  {
    await using files = new PeerFiles(shared(TINY).pathname);
    written = await files.gguf("Q4_1");
    assert.equal(await files.gguf("Q4_1"), written);
    assert.notEqual(await files.gguf("Q8_0"), written);
    assert.ok((await Deno.stat(written)).isFile);
  }
  await assert.rejects(Deno.stat(written), Deno.errors.NotFound);
});

oracleTest(
  "benchEngine() reports medians, spreads and ratios of all contenders",
  "oracles/gguf",
  async () => {
    const path = shared(TINY).pathname;
    const report = await benchEngine(path, {
      values: "f32",
      threads: 1,
      promptTokens: 20,
      decodeTokens: 4,
      streams: 3,
      repeats: 2,
      peers: ["own:int8", "own:int4"],
      peerModel: path,
    });
    assert.deepEqual([report.streams, report.repeats, report.prompt_tokens, report.skipped], [3, 2, 20, []]);
    assert.deepEqual(report.peers.map((p) => p.format), ["dense int8", "dense int4"]);
    for (const work of ["prefill", "decode", "streams"] as const) {
      const { min, max } = report.spread[work];
      const middle = report[`${work}_tokens_per_second`];
      assert.ok(0 < min && min <= middle && middle <= max, work);
      for (const p of report.peers) {
        // A ratio of two rounds lies between those of their extremes.
        assert.ok(
          p.ratio[work] >= min / p.spread[work].max && p.ratio[work] <= max / p.spread[work].min,
          work,
        );
      }
    }
  },
);
