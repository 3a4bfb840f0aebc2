import assert from "node:assert/strict";
import { join } from "node:path";
import { OatmillError } from "../errors.ts";
import { pull, type PullOptions } from "./pull.ts";
import { FakeHub, type FakeHubOptions } from "./testing/fake_hub.ts";

const text = (value: string) => new TextEncoder().encode(value);
const bytes = (length: number, seed = 1) =>
  Uint8Array.from({ length }, (_, i) => Math.imul(i + seed, 2654435761) >>> 24);
const REPO = "tiny/llama";
const FILES = {
  "config.json": text('{"model_type": "llama"}'),
  "tokenizer.json": text("{}"),
  "model.safetensors": bytes(300_000),
  "README.md": text("# A model"),
  "pytorch_model.bin": bytes(2000),
  "one.byte.safetensors": text("x"),
};
const PULLED = ["config.json", "model.safetensors", "tokenizer.json"];

interface Case {
  readonly hub: FakeHub;
  readonly folder: string;
  readonly run: (options?: Partial<PullOptions>) => ReturnType<typeof pull>;
}
function hubTest(name: string, options: Partial<FakeHubOptions>, check: (c: Case) => Promise<void>): void {
  Deno.test(`pull() ${name}`, async () => {
    await using hub = new FakeHub({ repo: REPO, files: FILES, ...options });
    const folder = await Deno.makeTempDir();
    const limits = { maxBytes: 2 ** 30, maxFiles: 20, retryMs: 1 };
    const access = { url: hub.url, token: null };
    try {
      await check({ hub, folder, run: (more) => pull({ repo: REPO, folder, access, ...limits, ...more }) });
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}
const names = (folder: string) => [...Deno.readDirSync(folder)].map((e) => e.name).sort();
const refused = (code: string, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof OatmillError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, message);
  return true;
};

hubTest(
  "takes the files that a model needs, page by page, and says what it took",
  { pageSize: 2 },
  async (c) => {
    const seen: number[] = [];
    const { path, commit, files } = await c.run({ onProgress: ({ done }) => seen.push(done) });
    assert.deepEqual([path, commit.length, files.length], [c.folder, 40, 3]);
    assert.deepEqual(names(c.folder), PULLED);
    for (const name of PULLED) {
      assert.deepEqual(
        await Deno.readFile(join(c.folder, name)),
        new Uint8Array(FILES[name as keyof typeof FILES]),
      );
    }
    assert.equal(seen.at(-1), files.reduce((sum, f) => sum + f.bytes, 0));
    assert.ok(seen.every((done, i) => i === 0 || done >= seen[i - 1]));
  },
);

hubTest("leaves what is there already, and mends what is damaged", {}, async ({ run, hub, folder }) => {
  await run();
  await Deno.writeTextFile(join(folder, "tokenizer.json"), "[]");
  hub.requests.length = 0;
  await run({ revision: "v1" });
  assert.deepEqual(hub.ranges("model.safetensors"), []);
  assert.equal(hub.ranges("tokenizer.json").length, 1);
  assert.equal(await Deno.readTextFile(join(folder, "tokenizer.json")), "{}");
});

hubTest("goes on where a connection broke", {
  breaksAfter: { "model.safetensors": [100_000, 0, 50_000], "config.json": [4] },
}, async ({ run, hub, folder }) => {
  await run();
  assert.deepEqual(names(folder), PULLED);
  const starts = hub.ranges("model.safetensors").map((range) => Number(/\d+/.exec(range!)![0]));
  assert.ok(starts.length >= 4 && starts.at(-1)! > 0, `${starts}`);
});

hubTest("goes on where an earlier call ended", {
  breaksAfter: { "model.safetensors": [100_000, 0, 0, 0, 0, 0] },
}, async ({ run, hub, folder }) => {
  await assert.rejects(run(), refused("hub_unavailable", /connection dropped/));
  assert.ok(names(folder).some((name) => /^model\.safetensors\.[0-9a-f]{16}\.part$/.test(name)));
  hub.requests.length = 0;
  for (let i = 0; i < 3 && names(folder).some((name) => name.endsWith(".part")); i++) {
    await run().catch(() => {});
  }
  assert.deepEqual(names(folder), PULLED);
  assert.doesNotMatch(hub.ranges("model.safetensors")[0]!, /bytes=0-/);
});

hubTest("refuses content whose hash is not the listed one, and keeps none of it", {
  damaged: { "model.safetensors": bytes(300_000, 2) },
}, async ({ run, folder }) => {
  await assert.rejects(run(), refused("hub_unavailable", /hash of "model\.safetensors" differs/));
  assert.ok(!names(folder).some((name) => name.startsWith("model.safetensors")));
});

hubTest("refuses content of another length, or from the wrong place", { ignoresRanges: true }, async (c) => {
  await c.run(); // a hub without ranges will do while nothing breaks
  await using long = new FakeHub({
    repo: REPO,
    files: FILES,
    damaged: { "model.safetensors": bytes(400_000) },
  });
  const folder = join(c.folder, "new");
  await Deno.mkdir(folder);
  const access = { url: long.url, token: null };
  await assert.rejects(c.run({ folder, access }), refused("hub_unavailable", /longer than the hub says/));
});

hubTest("sends the token to the hub and to nobody else", { token: "hf_secret" }, async ({ run, hub }) => {
  await assert.rejects(run(), refused("source_not_found", /status 401.*set HF_TOKEN/));
  const access = { url: `${hub.url}/`, token: "hf_wrong" };
  await assert.rejects(run({ access }), (error: Error) => {
    assert.doesNotMatch(error.message, /hf_wrong/);
    return refused("source_not_found", /token in HF_TOKEN may not read it/)(error);
  });
  hub.requests.length = 0;
  await run({ access: { url: hub.url, token: "hf_secret" } });
  const large = hub.requests.filter(({ host }) => host === "cdn");
  assert.ok(large.length > 0 && large.every(({ token }) => token === null));
});

hubTest("says what is not there", {}, async ({ run }) => {
  await assert.rejects(run({ repo: "tiny/none" }), refused("source_not_found", /no such model or revision/));
  await assert.rejects(run({ revision: "v9" }), refused("source_not_found", /no such model or revision/));
  await assert.rejects(run({ file: "a.gguf" }), refused("source_not_found", /no \.gguf file "a\.gguf"/));
  await assert.rejects(
    run({ access: { url: "http://127.0.0.1:9", token: null } }),
    refused("hub_unavailable", /127\.0\.0\.1:9/),
  );
  await assert.rejects(
    run({ access: { url: "file:///etc", token: null } }),
    refused("invalid_request", /http/),
  );
});

hubTest("asks for nothing by names that could lead elsewhere", {}, async ({ run, hub }) => {
  for (
    const repo of ["tiny", "../llama", "tiny/..", "tiny/llama/x", "a b/c", "tiny/llama?x=1", "/etc/passwd"]
  ) {
    await assert.rejects(run({ repo }), refused("invalid_request", /organisation\/name/), repo);
  }
  for (const revision of ["", "../main", "a b", "main?x", "%2e%2e"]) {
    await assert.rejects(run({ revision }), refused("invalid_request", /revision/), revision);
  }
  assert.equal(hub.requests.length, 0);
});

hubTest("refuses what is too large before any of it comes", {}, async ({ run, hub }) => {
  await assert.rejects(run({ maxBytes: 200_000 }), refused("too_large", /bytes, at most 200000/));
  await assert.rejects(run({ maxFiles: 2 }), refused("too_large", /3 files, at most 2/));
  assert.ok(!hub.requests.some(({ path }) => path.includes("resolve")));
});

hubTest("takes nothing whose listed name, size or hash is none", {
  listing: (entries) => [
    { ...entries[2], path: "../../evil.safetensors" },
    { ...entries[2], path: "sub/evil.safetensors" },
    { ...entries[2], path: "a.safetensors", size: -1, lfs: undefined },
    { ...entries[2], path: "b.safetensors", lfs: { ...entries[2].lfs, oid: "../x" } },
    { ...entries[2], path: "c.safetensors", type: "directory" },
    ...entries.slice(0, 3),
  ],
}, async ({ run, folder }) => {
  await run();
  assert.deepEqual(names(folder), PULLED);
});

hubTest("ends a listing that is none or has no end", { listing: () => "no list at all" }, async ({ run }) => {
  await assert.rejects(run(), refused("unsupported_format", /neither \.safetensors nor \.gguf/));
  const endless = Array.from(
    { length: 20_000 },
    (_, i) => ({ type: "file", path: `${i}`, size: 0, oid: "" }),
  );
  await using hub = new FakeHub({ repo: REPO, files: FILES, listing: () => endless });
  await assert.rejects(
    run({ access: { url: hub.url, token: null } }),
    refused("hub_unavailable", /10000 files/),
  );
  const long = "x".repeat(33 * 2 ** 20);
  await using wide = new FakeHub({ repo: REPO, files: FILES, listing: () => [long] });
  await assert.rejects(
    run({ access: { url: wide.url, token: null } }),
    refused("hub_unavailable", /longer than/),
  );
});

hubTest("takes one .gguf file: the only one, or the one that is named", {
  files: { "a.Q4_0.gguf": bytes(2000), "b.Q8_0.gguf": bytes(3000), "config.json": text("{}") },
}, async ({ run, folder }) => {
  await assert.rejects(
    run(),
    refused("unsupported_format", /several \.gguf files.*a\.Q4_0\.gguf, b\.Q8_0\.gguf/),
  );
  const { path } = await run({ file: "b.Q8_0.gguf" });
  assert.deepEqual([path, names(folder)], [join(folder, "b.Q8_0.gguf"), ["b.Q8_0.gguf"]]);
});

hubTest("does not take pickles, nor weights twice", {
  files: { "config.json": text("{}"), "pytorch_model.bin": bytes(2000) },
}, async ({ run, folder }) => {
  await assert.rejects(run(), refused("unsupported_format", /pickle runs code/));
  const shards = {
    "config.json": text("{}"),
    "model.safetensors.index.json": text("{}"),
    "model-00001-of-00001.safetensors": bytes(5),
    "consolidated.safetensors": bytes(6),
  };
  await using hub = new FakeHub({ repo: REPO, files: shards });
  await run({ access: { url: hub.url, token: null } });
  assert.deepEqual(names(folder), [
    "config.json",
    "model-00001-of-00001.safetensors",
    "model.safetensors.index.json",
  ]);
});

hubTest("stops when it is cancelled", { breaksAfter: { "model.safetensors": [1000] } }, async ({ run }) => {
  const abort = new AbortController();
  const work = run({ signal: abort.signal, onProgress: ({ done }) => done > 100 && abort.abort() });
  await assert.rejects(work, refused("cancelled", /cancelled/));
});

const POOLING = {
  "preprocessor_config.json": text("{}"),
  "modules.json": text("[]"),
  "1_Pooling/config.json": text('{"pooling_mode_cls_token": true}'),
  "1_Pooling/other.json": text("{}"),
  "onnx/model.onnx": bytes(2000),
};
hubTest(
  "takes how images are prepared and how states are pooled",
  { files: { ...FILES, ...POOLING } },
  async (c) => {
    const { files } = await c.run();
    const taken = [...PULLED, "preprocessor_config.json", "modules.json", "1_Pooling/config.json"];
    assert.deepEqual(files.map(({ name }) => name).sort(), taken.sort());
    assert.deepEqual(names(join(c.folder, "1_Pooling")), ["config.json"]);
  },
);
