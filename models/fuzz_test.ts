/** Valid files with something changed: whatever comes of it is a model or an OatmillError, and comes soon. */
import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { OatmillError } from "../errors.ts";
import { extractArchive } from "./formats/archive.ts";
import type { JsonObject } from "./formats/json_file.ts";
import { openCheckpoint } from "./open.ts";
import { oracleTest, shared } from "./testing/shared.ts";
import { loadTokenizer } from "./tokenizer.ts";

const ATTACKS = "oracles/attacks";
/** One case takes milliseconds; a loop over what a file claims takes for ever. */
const MAX_MS = 10_000;
const RUNS = { numRuns: 80 };

const bytesOf = (path: string) => Deno.readFile(shared(`${ATTACKS}/${path}`));
const textOf = (path: string) => Deno.readTextFile(shared(`${ATTACKS}/${path}`));

async function survives(run: () => unknown): Promise<void> {
  const start = performance.now();
  try {
    await run();
  } catch (error) {
    if (!(error instanceof OatmillError)) throw error;
    assert.ok(error.message.length > 10 && error.message.length < 2000, error.message);
  }
  assert.ok(performance.now() - start < MAX_MS, `${performance.now() - start} ms`);
  assert.equal(Reflect.get({}, "polluted"), undefined);
}

/** Values at the borders of what fields take, and any others. */
const odd = fc.oneof(
  fc.constantFrom<unknown>(0, -1, 1, 2 ** 31, 2 ** 53, 1e300, -1e300, 0.5, "", "32", "\0", "__proto__"),
  fc.constantFrom<unknown>(null, true, [], {}, [[]], [-1], { polluted: true }),
  fc.jsonValue({ maxDepth: 2 }),
);
/** Where in a document, as a choice at each level, and what stands there then; undefined: nothing. */
const change = fc.record({
  choices: fc.array(fc.nat(), { minLength: 1, maxLength: 6 }),
  value: fc.option(odd, { nil: undefined }),
});
const changes = fc.array(change, { minLength: 1, maxLength: 3 });
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

function changed(document: JsonObject, list: readonly Change[]): JsonObject {
  const copy = structuredClone(document);
  for (const { choices, value } of list) {
    // deno-lint-ignore no-explicit-any -- walks any JSON
    let at: any = copy;
    for (const [i, choice] of choices.entries()) {
      const keys = Object.keys(at);
      if (keys.length === 0) break;
      const key = keys[choice % keys.length], inner = at[key];
      if (i < choices.length - 1 && typeof inner === "object" && inner !== null) {
        at = inner;
        continue;
      }
      if (value === undefined) delete at[key];
      else at[key] = structuredClone(value);
      break;
    }
  }
  return copy;
}

/** Bytes overwritten, and where the file ends. */
const damage = fc.record({
  bytes: fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 4 }),
  cut: fc.option(fc.nat(), { nil: null, freq: 4 }),
});
type Damage = typeof damage extends fc.Arbitrary<infer T> ? T : never;

function damaged(file: Uint8Array, { bytes, cut }: Damage, within = file.length): Uint8Array {
  const copy = file.slice(0, cut === null ? file.length : cut % (file.length + 1));
  for (const [at, byte] of bytes) if (at % within < copy.length) copy[at % within] = byte;
  return copy;
}

async function inFolder(files: Record<string, Uint8Array | string>, run: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, content] of Object.entries(files)) {
      await Deno.writeFile(
        join(folder, name),
        typeof content === "string" ? new TextEncoder().encode(content) : content,
      );
    }
    await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Opens a model and reads some weights. */
async function read(path: string): Promise<void> {
  const checkpoint = await openCheckpoint(path);
  try {
    for (const role of ["embedding", "head", "block.0.q", "block.0.attnNorm"] as const) {
      if (checkpoint.has(role)) await checkpoint.read(role);
    }
  } finally {
    checkpoint.close();
  }
}

const LENGTH_BYTES = 8;

oracleTest("a changed safetensors header is refused, or read", `${ATTACKS}/base_ok`, async () => {
  const config = await textOf("base_ok/config.json"), file = await bytesOf("base_ok/model.safetensors");
  const length = Number(new DataView(file.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(LENGTH_BYTES, LENGTH_BYTES + length)));
  const data = file.subarray(LENGTH_BYTES + length);
  const withHeader = (list: readonly Change[]) => {
    const json = new TextEncoder().encode(JSON.stringify(changed(header, list)));
    const prefix = new Uint8Array(BigUint64Array.of(BigInt(json.length)).buffer);
    return new Uint8Array([...prefix, ...json, ...data]);
  };
  const files = fc.oneof(changes.map(withHeader), damage.map((d) => damaged(file, d, LENGTH_BYTES + length)));
  await fc.assert(
    fc.asyncProperty(
      files,
      (model) =>
        inFolder(
          { "config.json": config, "model.safetensors": model },
          (folder) => survives(() => read(folder)),
        ),
    ),
    RUNS,
  );
});

oracleTest("a changed config.json is refused, or describes a model", `${ATTACKS}/base_ok`, async () => {
  const config = JSON.parse(await textOf("base_ok/config.json"));
  const model = await bytesOf("base_ok/model.safetensors");
  await inFolder({ "model.safetensors": model }, async (folder) => {
    await fc.assert(
      fc.asyncProperty(changes, async (list) => {
        await Deno.writeTextFile(join(folder, "config.json"), JSON.stringify(changed(config, list)));
        await survives(() => read(folder));
      }),
      { numRuns: 200 },
    );
  });
});

oracleTest("a changed GGUF header is refused, or read", "oracles/gguf", async () => {
  const file = await Deno.readFile(shared("oracles/gguf/tiny_qwen2_f16.gguf"));
  const HEADER_BYTES = 24_000; // metadata, vocabulary and tensor infos
  await inFolder({}, async (folder) => {
    await fc.assert(
      fc.asyncProperty(damage, fc.boolean(), async (d, early) => {
        await Deno.writeFile(join(folder, "x.gguf"), damaged(file, d, early ? 1000 : HEADER_BYTES));
        await survives(() => read(join(folder, "x.gguf")));
      }),
      RUNS,
    );
  });
});

oracleTest("a changed tokenizer.json is refused, or encodes", `${ATTACKS}/tokenizer`, async () => {
  const tokenizer = JSON.parse(await textOf("tokenizer/ok.json"));
  await fc.assert(
    fc.asyncProperty(changes, fc.string({ maxLength: 30 }), (list, text) =>
      survives(() => {
        const loaded = loadTokenizer({ tokenizer: changed(tokenizer, list), config: {}, chatTemplate: null });
        loaded.decode(loaded.encode(text));
      })),
    { numRuns: 200 },
  );
});

for (const name of ["ok.zip", "ok.tar.gz"]) {
  oracleTest(`a changed ${name} is refused, or extracted`, `${ATTACKS}/archives`, async () => {
    const packed = await bytesOf(`archives/${name}`), isTar = name.endsWith(".gz");
    // A tar is changed inside of its gzip: otherwise checksums would catch everything.
    const file = isTar ? await gunzip(packed) : packed, plain = isTar ? "x.tar" : "x.zip";
    await fc.assert(
      fc.asyncProperty(
        damage,
        (d) =>
          inFolder(
            { [plain]: damaged(file, d, isTar ? 2048 : file.length) },
            (folder) =>
              survives(async () => {
                const limits = { maxBytes: 1 << 20, maxFiles: 20 };
                await extractArchive(join(folder, plain), join(folder, "into"), limits);
              }),
          ),
      ),
      RUNS,
    );
  });
}

async function gunzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
