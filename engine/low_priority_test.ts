import assert from "node:assert/strict";
import { niceValues } from "../tests/nice_values.ts";
import { LOWEST_PRIORITY } from "./low_priority.ts";

/** A thread that lowers its priority, and one that it starts. */
const THREAD = `
  import { lowerThreadPriority } from ${JSON.stringify(new URL("./low_priority.ts", import.meta.url).href)};
  if (self.name === "inner") self.postMessage(true);
  else {
    const lowered = lowerThreadPriority();
    const worker = new Worker(import.meta.url, { type: "module", name: "inner" });
    worker.onmessage = () => self.postMessage(lowered);
  }
`;

Deno.test({
  name: "lowerThreadPriority() lowers the calling thread and those it starts, no other",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const before = await niceValues();
    const file = await Deno.makeTempFile({ suffix: ".ts" });
    await Deno.writeTextFile(file, THREAD);
    const worker = new Worker(new URL(`file://${file}`), { type: "module", name: "outer" });
    const lowered = await new Promise((done) => worker.onmessage = ({ data }) => done(data));
    const after = await niceValues();
    worker.terminate();
    await Deno.remove(file);
    assert.equal(lowered, true);
    const lowest = (values: readonly number[]) => values.filter((n) => n === LOWEST_PRIORITY).length;
    // Where the tests themselves run at this priority, every thread of theirs has it.
    if (lowest(before) > 0) return;
    assert.equal(lowest(after), 2);
    assert.ok(after.filter((n) => n === before[0]).length >= before.length);
  },
});

Deno.test("lowerThreadPriority() says no without the permission, and does not prompt", async () => {
  const module = new URL("./low_priority.ts", import.meta.url).href;
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(
    file,
    `import { lowerThreadPriority } from ${JSON.stringify(module)}; console.log(lowerThreadPriority());`,
  );
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-config", "--no-check", "--allow-read", file],
    stdout: "piped",
  }).output();
  await Deno.remove(file);
  assert.equal(new TextDecoder().decode(stdout), "false\n");
});
