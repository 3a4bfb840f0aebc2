/**
 * Every family against its recorded reference, through the whole engine on the exact (f32) path: logits, log-likelihoods
 * and greedy continuations, alone and several at once, on one and two threads.
 */
import assert from "node:assert/strict";
import { openCheckpoint } from "../models/open.ts";
import { packDense } from "../models/pack_dense.ts";
import { DECODER_ORACLES } from "../models/testing/decoder_oracles.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { loadEngine } from "./engine.ts";
import { type Engine, GREEDY } from "./types.ts";

const ORACLES = shared("oracles/").pathname;
/** f32 kernels against an f32 reference (README of the oracles: f32 against f64 differs by at most 1.1e-4). */
const LOGITS_TOLERANCE = 1e-3;
const NLL_TOLERANCE = 2e-3;

interface Expected {
  prompts: Record<string, { ids: number[]; last_logits: number[]; all_logits?: number[][] }>;
  greedy: { prompt_ids: number[]; continuation: number[] }[];
  nll: { ids: number[]; sum_nll: number; per_token_nll: number[] };
}

export async function greedy(
  engine: Engine,
  promptIds: readonly number[],
  maxTokens: number,
): Promise<number[]> {
  const tokens: number[] = [];
  const request = { promptIds, maxTokens, stopIds: [], sampling: GREEDY, logprobs: null };
  for await (const e of engine.generate(request)) if (e.type === "token") tokens.push(e.token);
  return tokens;
}

function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what: string,
): void {
  assert.equal(actual.length, expected.length, what);
  let worst = 0;
  for (let i = 0; i < expected.length; i++) worst = Math.max(worst, Math.abs(actual[i] - expected[i]));
  assert.ok(worst <= tolerance, `${what}: differs by ${worst}, allowed ${tolerance}`);
}

for (const family of DECODER_ORACLES) {
  for (const threads of [1, 2]) {
    oracleTest(
      `${family} equals its oracle on ${threads} thread(s)`,
      `oracles/${family}`,
      async () => {
        const dir = `${ORACLES}${family}`;
        const expected: Expected = JSON.parse(await Deno.readTextFile(`${dir}/expected.json`));
        const checkpoint = await openCheckpoint(dir);
        const engine = await loadEngine(packDense(checkpoint, { values: "f32" }), { threads });
        try {
          for (const [name, p] of Object.entries(expected.prompts)) {
            assertClose(await engine.logits(p.ids), p.last_logits, LOGITS_TOLERANCE, `${name} logits`);
            if (p.all_logits) {
              assertClose(
                await engine.logits(p.ids, { from: 0 }),
                p.all_logits.flat(),
                LOGITS_TOLERANCE,
                `${name}, all`,
              );
            }
          }
          const nll = await engine.score(expected.nll.ids);
          assertClose(nll, expected.nll.per_token_nll, NLL_TOLERANCE, "nll");
          const alone: number[][] = [];
          for (const g of expected.greedy) {
            alone.push(await greedy(engine, g.prompt_ids, g.continuation.length));
            assert.deepEqual(alone.at(-1), g.continuation);
          }
          // All at once, several of each: continuous batching must not change a token.
          const many = [...expected.greedy, ...expected.greedy, ...expected.greedy];
          const batched = await Promise.all(
            many.map((g) => greedy(engine, g.prompt_ids, g.continuation.length)),
          );
          many.forEach((g, i) => assert.deepEqual(batched[i], g.continuation));
          assert.equal(engine.stats().kvBlocksUsed, 0);
        } finally {
          await engine.close();
          checkpoint.close();
        }
      },
      { sanitizeOps: false, sanitizeResources: false },
    );
  }
}
