import assert from "node:assert/strict";
import { labelOrder } from "./label_order.ts";

Deno.test("labelOrder() finds labels by name, however they are written", () => {
  const model = ["tench, Tinca tinca", "Great White Shark", "cat"];
  assert.deepEqual(labelOrder(["cat", "great_white_shark", "tench"], model), [2, 1, 0]);
  assert.deepEqual(labelOrder(["Tinca-Tinca"], model), [0]);
});

Deno.test("labelOrder() takes the order where no name is known, and refuses a few unknown ones", () => {
  assert.deepEqual(labelOrder(["n0001", "n0002"], ["tench", "shark"]), [0, 1]);
  assert.throws(() => labelOrder(["n0001"], ["tench", "shark"]), {
    code: "invalid_request",
    message: /"n0001".*"tench", "shark"/,
  });
  assert.throws(() => labelOrder(["shark", "n0002"], ["tench", "shark"]), { message: /"n0002"/ });
});
