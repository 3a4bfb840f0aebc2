import assert from "node:assert/strict";
import { mergeReports, passed } from "./report.ts";
import { campaign } from "./shutdown.ts";

Deno.test("a server that is stopped under load loses no request, one that is killed starts again with everything whole", async () => {
  const report = mergeReports([await campaign({ seed: 1, full: false })]);
  assert.ok(passed(report), JSON.stringify(report, null, 2));
  assert.ok(report.crashes.tried > 0 && report.requests.sent > 0);
});
