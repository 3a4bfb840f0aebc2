import assert from "node:assert/strict";
import { recipeSchema } from "../models/recipe.ts";
import { storedTask, taskIn } from "./compress_task.ts";

const access = { url: "https://hub.test", token: "hf_secret" };
const task = {
  archive: "/data/tmp/x/model.zip",
  source: "/data/tmp/x/unpacked",
  hub: { repo: "a/b", access },
  recipe: recipeSchema.parse({ calibration: { text: "/data/tmp/x/t.txt" }, evaluate: { text: null } }),
  maxBytes: 1,
  maxFiles: 2,
};

Deno.test("storedTask() names no place but those in the job's folder, and no token", () => {
  const stored = storedTask(task, "/data/tmp/x");
  const text = JSON.stringify(stored);
  assert.ok(!text.includes("/data") && !text.includes("hf_secret"), text);
  assert.equal(stored.recipe.calibration.text, "./t.txt");
});

Deno.test("taskIn() finds what was stored in another folder, and gives the token to the same hub alone", () => {
  const stored = JSON.parse(JSON.stringify(storedTask(task, "/data/tmp/x")));
  const found = taskIn(stored, { folder: "/data/jobs/j", model: "m", access });
  assert.deepEqual(found, {
    ...task,
    archive: "/data/jobs/j/source/model.zip",
    source: "/data/jobs/j/source/unpacked",
    recipe: {
      ...task.recipe,
      calibration: { ...task.recipe.calibration, text: "/data/jobs/j/source/t.txt" },
    },
    out: "/data/jobs/j/artifact",
    work: "/data/jobs/j/work",
    name: "m",
  });
  const elsewhere = { url: "https://other.test", token: "hf_other" };
  const other = taskIn(stored, { folder: "/j", model: "m", access: elsewhere });
  assert.deepEqual(other.hub!.access, { url: access.url, token: null });
});

Deno.test("a whole folder as source, and text that the model writes itself, stay what they are", () => {
  const plain = {
    ...task,
    archive: null,
    source: "/data/tmp/x",
    hub: undefined,
    recipe: recipeSchema.parse({}),
  };
  const found = taskIn(storedTask(plain, "/data/tmp/x"), { folder: "/j", model: "m", access });
  assert.deepEqual([found.archive, found.source, found.recipe.calibration.text], [null, "/j/source", "self"]);
});
