import assert from "node:assert/strict";
import type { Contender } from "./contender.ts";
import { takeTurns } from "./take_turns.ts";

Deno.test("takeTurns() has every contender do the same work in turn, forth and back, and drops the first round", async () => {
  const log: string[] = [];
  let clock = 0;
  const contender = (name: string): Contender => ({
    name,
    format: "f",
    prefill: (tokens) => (log.push(`${name} prefill ${tokens}`), Promise.resolve(++clock)),
    decode: (tokens) => (log.push(`${name} decode ${tokens}`), Promise.resolve(++clock)),
    streams: (count, tokens) => (log.push(`${name} streams ${count}x${tokens}`), Promise.resolve(++clock)),
    close: () => Promise.resolve(),
  });
  const seen: [number, number][] = [];
  const rounds = await takeTurns([contender("a"), contender("b")], {
    promptTokens: 5,
    decodeTokens: 3,
    streams: 2,
    repeats: 1,
    onProgress: (done, total) => seen.push([done, total]),
  });
  const forth = ["a prefill 5", "b prefill 5", "a decode 3", "b decode 3", "a streams 2x3", "b streams 2x3"];
  const back = ["b prefill 5", "a prefill 5", "b decode 3", "a decode 3", "b streams 2x3", "a streams 2x3"];
  assert.deepEqual(log, [...forth, ...back]);
  assert.deepEqual(rounds, [[{ prefill: 8, decode: 10, streams: 12 }], [{
    prefill: 7,
    decode: 9,
    streams: 11,
  }]]);
  assert.deepEqual(seen.at(-1), [12, 12]);
});
