import assert from "node:assert/strict";
import { campaign } from "./overload.ts";
import { mergeReports, passed } from "./report.ts";

Deno.test("a server with four times its load answers or refuses every request and stays what it is", async () => {
  const report = mergeReports([await campaign({ seed: 1, full: false })]);
  assert.ok(passed(report), JSON.stringify(report, null, 2));
  assert.ok(report.requests.sent > 0);
});
