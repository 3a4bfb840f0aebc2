import assert from "node:assert/strict";
import { Turns } from "./turns.ts";

Deno.test("work of one key comes one after the other, that of others beside it", async () => {
  const turns = new Turns(), order: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = turns.take("a", async () => {
    await gate.promise;
    order.push("first");
    throw new Error("failed");
  });
  const second = turns.take("a", () => Promise.resolve(order.push("second")));
  await turns.take("b", () => Promise.resolve(order.push("other")));
  const idle = turns.idle().then(() => order.push("idle"));
  gate.resolve();
  await assert.rejects(first, /failed/);
  assert.equal(await second, 3);
  await idle;
  assert.deepEqual(order, ["other", "first", "second", "idle"]);
  await turns.idle();
});
