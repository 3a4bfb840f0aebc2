import assert from "node:assert/strict";
import { loadKernelModules } from "./load.ts";
import { LINEAR_MODULES, type LinearModule } from "./manifest.ts";
import { formatClass, type Measure, toChoice, tune } from "./tune.ts";

/** Takes `ms` a measurement; the variants named are twice as fast as the others. */
function fake(fast: Readonly<Record<string, string>>, ms = 1) {
  let time = 0;
  const asked: string[] = [];
  const measure: Measure = (modules, work, deadline) => {
    asked.push(`${modules[0].name} ${work}`);
    time += ms;
    const speed = ({ variant }: LinearModule) => variant === fast[work] ? 1 : 2;
    return Promise.resolve(time > deadline ? null : modules.map(speed));
  };
  return { asked, options: { measure, now: () => time, budgetMs: 30 } };
}

Deno.test("tune() measures one format of each class for both kinds of work, and nothing that is known", async () => {
  const { asked, options } = fake({ decode: "i16", batched: "i32" });
  const tuned = await tune(["w6q8", "w8q8", "q8", "f32"], {
    q8: { format: "q8", decode: "i32", batched: "i32" },
  }, options);
  assert.deepEqual(asked, ["w6q8 decode", "w6q8 batched"]);
  assert.deepEqual(tuned.w8, { format: "w6q8", decode: "i16", batched: "i32" });
  assert.deepEqual(toChoice(["w8q8", "q8", "f32"], tuned), {
    w8q8: { decode: "i16", batched: "i32" },
    q8: { decode: "i32", batched: "i32" },
  });
});

Deno.test("tune() keeps the first variant where another gains less than noise", async () => {
  const measure: Measure = (modules) => Promise.resolve(modules.map((_, i) => i === 0 ? 100 : 97));
  const tuned = await tune(["q4"], {}, { measure });
  assert.deepEqual([tuned.q4.decode, tuned.q4.batched], ["i16", "i16"]);
});

Deno.test("tune() stops at its budget, and half a result is none", async () => {
  const { asked, options } = fake({ decode: "i32", batched: "i32" }, 12);
  const tuned = await tune(["q8", "q4", "w6q8"], {}, options);
  assert.deepEqual(Object.keys(tuned), []);
  const slow = fake({ decode: "i32", batched: "i32" }, 9);
  assert.deepEqual(Object.keys(await tune(["q8", "q4", "w6q8"], {}, slow.options)), ["q8"]);
  assert.ok(asked.length <= 3);
});

Deno.test("tune() measures real kernels, and what it chooses loads", async () => {
  const tuned = await tune(["q8", "w6q4"], {});
  const choice = toChoice(["f32", "q8", "w6q4"], tuned);
  const modules = await loadKernelModules(["base", "f32", "q8", "w6q4"], choice);
  for (const name of ["base", "f32", "q8", "w6q4"]) assert.ok(modules.has(name));
});

Deno.test("formats of a class have the same variants in the same order", () => {
  const variants = new Map<string, string[]>();
  for (const { name } of LINEAR_MODULES) {
    const own = LINEAR_MODULES.filter((module) => module.name === name).map(({ variant }) => variant);
    const first = variants.get(formatClass(name)) ?? own;
    assert.deepEqual(own, first);
    variants.set(formatClass(name), first);
  }
});
