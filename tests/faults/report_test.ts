import assert from "node:assert/strict";
import { mergeReports, passed } from "./report.ts";

Deno.test("mergeReports() adds up what campaigns have and passed() finds what is missing", () => {
  const crashes = { crashes: { tried: 3, survived: 3 } };
  const requests = { requests: { sent: 5, answered: 5, lost: 0 }, crashes: { tried: 1, survived: 1 } };
  const merged = mergeReports([crashes, requests, { bad_inputs: { tried: 2, refused: 2 } }]);
  assert.deepEqual(merged, {
    crashes: { tried: 4, survived: 4 },
    requests: { sent: 5, answered: 5, lost: 0 },
    bad_inputs: { tried: 2, refused: 2 },
    failures: [],
    notes: [],
  });
  assert.ok(passed(merged));
  assert.ok(!passed({ ...merged, requests: { sent: 5, answered: 4, lost: 1 } }));
  assert.ok(!passed({ ...merged, crashes: { tried: 4, survived: 3 } }));
  assert.ok(!passed({ ...merged, bad_inputs: { tried: 2, refused: 1 } }));
  assert.ok(!passed(mergeReports([merged, { failures: ["The server ended"] }])));
});
