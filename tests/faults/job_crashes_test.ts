import assert from "node:assert/strict";
import { campaign } from "./job_crashes.ts";
import { mergeReports, passed } from "./report.ts";

Deno.test("a job whose server is killed at random moments makes the artifact of one that nobody disturbed", async () => {
  const report = mergeReports([await campaign({ seed: 3, full: false })]);
  assert.ok(passed(report), JSON.stringify(report, null, 2));
  assert.ok(report.crashes.tried >= 2, `${report.crashes.tried} kills`);
});
