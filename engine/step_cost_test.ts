import assert from "node:assert/strict";
import { StepCost, type StepShape } from "./step_cost.ts";

/** A chunk of a prompt that begins at `from`. */
const chunk = (rows: number, from: number, decodeRows = 0): StepShape => ({
  decodeRows,
  promptRows: rows,
  promptContext: rows * from + rows * (rows + 1) / 2,
});
const decode: StepShape = { decodeRows: 1, promptRows: 0, promptContext: 0 };
const close = (actual: number, expected: number, share = 0.02) =>
  assert.ok(Math.abs(actual - expected) <= share * expected, `${actual}, expected ${expected}`);

Deno.test("StepCost learns what a row and what its context cost", () => {
  const cost = new StepCost();
  for (let from = 0; from < 2048; from += 256) {
    const shape = chunk(256, from);
    cost.observe(shape, 0.5 * shape.promptRows + 0.001 * shape.promptContext);
  }
  close(cost.rowMs(0), 0.501);
  close(cost.rowMs(7999), 8.5);
});

Deno.test("StepCost takes the time of decoding off a mixed step and leaves prompts the rest of the target", () => {
  const cost = new StepCost();
  for (let i = 0; i < 40; i++) cost.observe(decode, 8);
  close(cost.mixedMs, 42);
  for (let i = 0; i < 10; i++) cost.observe(chunk(16, 0, 1), 8 + 32);
  close(cost.rowMs(8), 2);
});

Deno.test("StepCost lets prompts double the time of a slow model's steps", () => {
  const cost = new StepCost();
  cost.observe(decode, 400);
  assert.equal(cost.mixedMs, 400);
});

Deno.test("StepCost never gives a negative or undefined cost", () => {
  const cost = new StepCost();
  assert.ok(cost.rowMs(0) > 0);
  const times = [900, 0, 3, 500, 1, 250];
  times.forEach((ms, i) => {
    cost.observe(chunk(16 + 40 * (i % 3), 100 * i, i % 2), ms);
    for (const p of [0, 10, 100_000]) assert.ok(cost.rowMs(p) >= 0);
  });
});

Deno.test("StepCost follows a machine that becomes slower", () => {
  const cost = new StepCost();
  for (let i = 0; i < 20; i++) cost.observe(chunk(256, 0), 100);
  for (let i = 0; i < 20; i++) cost.observe(chunk(256, 0), 300);
  close(cost.rowMs(127), 300 / 256);
});
