import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import fc from "fast-check";
import { DEFAULT_MODEL } from "../models/testing/artifact.ts";
import { familyOfConfig } from "../models/families/mod.ts";
import { GgufFile } from "../models/formats/gguf.ts";
import { parseGgufHeader } from "../models/formats/gguf_header.ts";
import { openModel } from "../engine/open_model.ts";
import { type Engine, GREEDY } from "../engine/types.ts";
import type { Checkpoint, TokenizerFiles } from "../models/checkpoint.ts";
import { byteLevelFiles, idsOf } from "../models/formats/vocab_merges.ts";
import { openCheckpoint } from "../models/open.ts";
import { DECODER_ORACLES } from "../models/testing/decoder_oracles.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { loadTokenizer } from "../models/tokenizer.ts";
import { exportModel } from "./export.ts";
import { type GgufEntry, ggufHeader } from "./gguf_encoder.ts";
import { distance, F32_NOISE, logitsOfPath } from "./testing/logits.ts";
import { inFolder, writeArtifactOf } from "./testing/sparse_low_rank.ts";

const ORACLES = shared("oracles/").pathname;
/** Models that GGUF cannot describe though their family has a layout, and what it cannot say. */
const REFUSED: Readonly<Record<string, RegExp>> = {
  llama_yarn: /rotary/,
  phi3_longrope: /rotary/,
  phi4_mini: /rotary/,
  gemma2: /attention/, // scores of another scale than the published models have
  gemma3_text: /rotary/,
  gpt2_odd: /blockAttention/,
  gpt_neox_seq: /mlp/,
};
/** Steps of rounding each weight, and what blocks make of that. */
const ROUNDED = { f16: 0.01, bf16: 0.05, q8_0: 0.1 } as const;

const TEXTS = [
  "Once upon a time, there was a little girl.",
  "  two  spaces\n\nand 1234 lines\t!",
  "naïve café 日本 🙂 'tis don't",
];

for (const oracle of DECODER_ORACLES) {
  oracleTest(
    `${oracle} leaves an artifact as GGUF with the same logits, or is refused`,
    `oracles/${oracle}`,
    () =>
      inFolder(async (folder) => {
        const config = JSON.parse(await Deno.readTextFile(join(ORACLES, oracle, "config.json")));
        const model = await writeArtifactOf(join(ORACLES, oracle), folder), out = join(folder, "out.gguf");
        const run = () => exportModel({ model, to: "gguf", out, type: "f32" });
        if (familyOfConfig(config).gguf === null) {
          return await assert.rejects(run(), { code: "unsupported_architecture", message: /GGUF layout/ });
        }
        if (oracle in REFUSED) {
          return await assert.rejects(run(), { code: "unsupported_format", message: REFUSED[oracle] });
        }

        await run();
        // Mistral's window is no part of the format: the file says that its context ends with it.
        const ids = [3, 17, 5, 60, 8, 21, 34, 2, 9, 41, 11, 7];
        const off = distance(await logitsOfPath(model, ids), await logitsOfPath(out, ids));
        assert.ok(off < F32_NOISE, `off by ${off}`);
      }),
  );
}

for (const type of ["f16", "bf16", "q8_0"] as const) {
  oracleTest(
    `export writes GGUF in ${type}, vectors in f32`,
    "oracles/llama3",
    () =>
      inFolder(async (folder) => {
        const model = await writeArtifactOf(join(ORACLES, "llama3"), folder), out = join(folder, "out.gguf");
        const { bytes } = await exportModel({ model, to: "gguf", out, type });
        using file = await GgufFile.open(out);
        assert.equal(file.tensorBytes, bytes);
        assert.equal(file.info("blk.0.attn_q.weight")!.type, type.toUpperCase());
        assert.equal(file.info("blk.0.attn_norm.weight")!.type, "F32");
        const off = distance(await logitsOfPath(model), await logitsOfPath(out));
        assert.ok(off > 1e-6 && off < ROUNDED[type], `off by ${off}`);
      }),
  );
}

oracleTest(
  "exported vocabularies split texts as their tokenizer.json",
  "oracles/gguf",
  () =>
    inFolder(async (folder) => {
      const sources = ["tiny_llama_f32", "tiny_qwen2_f16"].map((name) => join(ORACLES, `gguf/${name}.gguf`));
      for (const [i, model] of [...sources, DEFAULT_MODEL].entries()) {
        const out = join(folder, `${i}.gguf`);
        await exportModel({ model, to: "gguf", out, type: "f32" });
        const [before, after] = await Promise.all([model, out].map(async (path) => {
          const checkpoint = await openCheckpoint(path);
          checkpoint.close();
          return loadTokenizer(checkpoint.tokenizerFiles!);
        }));
        for (const text of TEXTS) {
          assert.deepEqual(after.encode(text), before.encode(text), `${model}: ${text}`);
        }
        assert.deepEqual(after.eosIds, before.eosIds);
      }
    }),
);

Deno.test("ggufHeader() is read back as it was meant", () => {
  const entry: fc.Arbitrary<GgufEntry> = fc.oneof(
    fc.record({ string: fc.string({ unit: "grapheme" }) }),
    fc.record({ u32: fc.nat() }),
    fc.record({ f32: fc.float({ noNaN: true }) }),
    fc.record({ bool: fc.boolean() }),
    fc.record({ strings: fc.array(fc.string()) }),
    fc.record({ i32s: fc.array(fc.integer()) }),
    fc.record({ f32s: fc.array(fc.float({ noNaN: true })) }),
  );
  const shapes = fc.array(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 3 }), {
    maxLength: 5,
  });
  const key = fc.string({ minLength: 1 }).filter((text) =>
    !["__proto__", "general.alignment"].includes(text)
  );
  fc.assert(fc.property(fc.dictionary(key, entry), shapes, (metadata, list) => {
    const tensors = list.map((shape, i) => {
      const bytes = 4 * shape.reduce((a, b) => a * b, 1);
      return { name: `t${i}`, shape, type: "F32", bytes };
    });
    const header = ggufHeader(metadata, tensors);
    const padded = (bytes: number) => Math.ceil(bytes / 32) * 32;
    const size = header.length + tensors.reduce((sum, { bytes }) => sum + padded(bytes), 0);
    const parsed = parseGgufHeader(header, size, "x.gguf");
    for (const [name, value] of Object.entries(metadata)) {
      const [wanted] = Object.values(value), got = parsed.metadata.get(name);
      assert.deepEqual(ArrayBuffer.isView(got) ? [...got as Float32Array] : got, wanted);
    }
    let offset = header.length;
    for (const { name, shape, bytes } of tensors) {
      const tensor = parsed.tensors.get(name)!;
      assert.deepEqual([tensor.shape, tensor.offset, tensor.bytes], [shape, offset, bytes]);
      offset += padded(bytes);
    }
  }));
});

const SCRIPT = fileURLToPath(new URL("../bench/peer/greedy.mjs", import.meta.url));
const TOKENS = 24;

function peerMissing(): string | null {
  try {
    Deno.statSync(new URL("../bench/peer/node_modules/node-llama-cpp", import.meta.url));
    Deno.statSync(shared("oracles/gguf"));
    return null;
  } catch {
    return "node-llama-cpp is not installed in bench/peer, or ../shared/oracles is absent";
  }
}

interface Job {
  readonly path: string;
  readonly texts: readonly string[];
  readonly prompts: readonly (readonly number[])[];
  readonly tokens: number;
}

interface Answer {
  readonly tokenized: number[][];
  readonly continuations: number[][];
}

async function llamaCpp(jobs: readonly Job[]): Promise<Answer[]> {
  const command = new Deno.Command("node", { args: [SCRIPT, JSON.stringify(jobs)] });
  const { success, stdout, stderr } = await command.output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout).trim().split("\n").at(-1)!);
}

/** Between the best two logits: what another order of additions may turn over in these random models. */
const TIE = 0.01;

interface Greedy {
  readonly tokens: number[];
  /** The best logit minus the second. */
  readonly margins: number[];
}

async function continueGreedily(engine: Engine, promptIds: readonly number[]): Promise<Greedy> {
  const tokens: number[] = [], margins: number[] = [];
  const request = { promptIds, maxTokens: TOKENS, stopIds: [], sampling: GREEDY, logprobs: 2 };
  for await (const event of engine.generate(request)) {
    if (event.type !== "token") continue;
    const [first, second] = event.logprobs!.top;
    tokens.push(event.token);
    margins.push(first[1] - second[1]);
  }
  return { tokens, margins };
}

/** node-llama-cpp opens no model without a vocabulary: bytes, and words that no merge makes. */
function bytesTokenizer({ spec: { vocabSize } }: Checkpoint): TokenizerFiles {
  const bytes = Array.from({ length: 256 }, (_, byte) => byteChar(byte));
  const tokens = Array.from({ length: vocabSize }, (_, id) => bytes[id] ?? `unused${id}`);
  return byteLevelFiles(idsOf(tokens), []);
}

/** A byte as byte-level BPE writes it: printable ones of Latin-1 as they are, others from U+0100 on, in order. */
function byteChar(byte: number): string {
  const isPlain = (b: number) => (b > 32 && b < 127) || (b > 160 && b !== 173);
  const before = Array.from({ length: byte }, (_, b) => b).filter((b) => !isPlain(b)).length;
  return String.fromCodePoint(isPlain(byte) ? byte : 256 + before);
}

const PROMPTS = [[3, 17, 5, 60, 8], [41, 2, 9, 30, 22, 7, 11, 19, 25], [100]];
const PEER_SOURCES = [
  "gguf/tiny_llama_f32.gguf",
  "gguf/tiny_llama_q8_0_ropefreqs_tied.gguf",
  "gguf/tiny_qwen2_f16.gguf",
  "llama_bias",
  "qwen3",
  "gemma",
  "mistral",
  "gpt2",
  "gpt_neox",
  "falcon",
  "starcoder2",
  "phi3",
];

/** llama.cpp continues what was exported as Oatmill does the artifact, as far as no tie turns over, and splits texts alike. */
async function compare(model: string, { tokenized, continuations }: Answer): Promise<void> {
  const { engine, tokenizer, spec } = await openModel(model, { threads: 1, kvFormat: "f32" });
  for (const [i, prompt] of PROMPTS.entries()) {
    const { tokens, margins } = await continueGreedily(engine, prompt);
    const tie = margins.findIndex((margin) => margin < TIE);
    // GGUF says no window of Mistral's: the two agree up to it.
    const until = Math.min(tie < 0 ? TOKENS : tie, (spec.attention.window ?? Infinity) - prompt.length);
    assert.deepEqual(continuations[i].slice(0, until), tokens.slice(0, until), `${model}: after ${prompt}`);
  }
  const encode = (text: string) => tokenizer!.encode(text, { addSpecialTokens: false });
  assert.deepEqual(tokenized, TEXTS.slice(0, tokenized.length).map(encode), model);
  await engine.close();
}

const why = peerMissing();
Deno.test({
  name: `llama.cpp continues as Oatmill does what was exported as GGUF${why ? ` (ignored: ${why})` : ""}`,
  ignore: why !== null,
  fn: () =>
    inFolder(async (folder) => {
      const models: string[] = [], jobs: Job[] = [];
      for (const [i, source] of PEER_SOURCES.entries()) {
        const own = join(folder, String(i)), path = join(own, "out.gguf");
        await Deno.mkdir(own);
        const model = await writeArtifactOf(join(ORACLES, source), own, bytesTokenizer);
        await exportModel({ model, to: "gguf", out: path, type: "f32" });
        models.push(model);
        jobs.push({ path, texts: source.startsWith("gguf") ? TEXTS : [], prompts: PROMPTS, tokens: TOKENS });
      }
      for (const [i, answer] of (await llamaCpp(jobs)).entries()) await compare(models[i], answer);
    }),
});
