/**
 * GGUF files of families that have no such oracle, made from the oracles in Hugging Face's layout: other names, rows in
 * another order, norms stored whole. The logits must be those of the source.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { SafetensorsFolder } from "./formats/safetensors_folder.ts";
import { openCheckpoint } from "./open.ts";
import { ggufBytes, type GgufField, type GgufTensorBytes } from "./testing/gguf_bytes.ts";
import { type Config, type Converter, CONVERTERS } from "./testing/gguf_converters.ts";
import { ReferenceModel } from "./testing/reference_forward.ts";
import { oracleTest, shared } from "./testing/shared.ts";

/** That of the oracles; numbers of the metadata are f32. */
const LOGITS_TOLERANCE = 1e-3;

/** Tensors of the source under their GGUF names; buffers that are no weights stay behind. */
async function convertTensors(
  folder: string,
  config: Config,
  converter: Converter,
): Promise<GgufTensorBytes[]> {
  using source = await SafetensorsFolder.open(folder);
  const tensors: GgufTensorBytes[] = [];
  for (const name of source.names()) {
    const { shape } = source.info(name)!;
    const own = name.replace(/^(transformer|gpt_neox)\./, "").replace(/\.(weight|bias)$/, "");
    const inBlock = /^(?:model\.layers|layers|h)\.(\d+)\.(.*)$/.exec(own);
    const renamed = converter.names[inBlock?.[2] ?? own];
    if (renamed === undefined) continue;
    const values = await source.readFloat32(name, 0, shape.reduce((a, b) => a * b, 1));
    tensors.push({
      name: `${inBlock ? `blk.${inBlock[1]}.` : ""}${renamed}${/\.\w+$/.exec(name)![0]}`,
      ...converted({ renamed, shape, values }, config, converter),
    });
  }
  return tensors;
}

interface Values {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

function converted(
  { renamed, shape, values }: Values & { readonly renamed: string },
  config: Config,
  { wholeNorms, transposed, headsOfFused }: Converter,
): Values {
  const [rows, cols = 1] = shape;
  if (wholeNorms && renamed.endsWith("norm")) return { shape, values: values.map((x) => x + 1) };
  if (transposed && shape.length === 2 && !renamed.endsWith("embd")) {
    return {
      shape: [cols, rows],
      values: values.map((_, at) => values[at % rows * cols + Math.floor(at / rows)]),
    };
  }
  if (headsOfFused && renamed === "attn_qkv") {
    const heads = config.num_attention_heads, size = rows / heads / 3 * cols; // of q, k or v of a head
    const sorted = values.map((_, at) => {
      const part = Math.floor(at / size / heads), head = Math.floor(at / size) % heads;
      return values[(3 * head + part) * size + at % size];
    });
    return { shape, values: sorted };
  }
  return { shape, values };
}

/** Phi-3's divisors of rotary frequencies. */
function factorTensors(config: Readonly<Record<string, unknown>>): GgufTensorBytes[] {
  const scaling = config.rope_scaling as { long_factor?: number[]; short_factor?: number[] } | null;
  if (!scaling?.long_factor) return [];
  return Object.entries({ long: scaling.long_factor, short: scaling.short_factor! })
    .map(([name, values]) => ({ name: `rope_factors_${name}.weight`, shape: [values.length], values }));
}

async function convert(folder: string, converter: Converter): Promise<Uint8Array<ArrayBuffer>> {
  const config = JSON.parse(await Deno.readTextFile(join(folder, "config.json")));
  const { architecture } = converter;
  const fields = Object.entries(converter.metadata(config))
    .filter((entry): entry is [string, GgufField] => entry[1] !== undefined && entry[1] !== null)
    .map(([key, value]) => [`${architecture}.${key}`, value]);
  return ggufBytes(
    { "general.architecture": architecture, ...Object.fromEntries(fields) },
    [...factorTensors(config), ...await convertTensors(folder, config, converter)],
  );
}

async function withFile(bytes: Uint8Array, use: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".gguf" });
  try {
    await Deno.writeFile(path, bytes);
    await use(path);
  } finally {
    await Deno.remove(path);
  }
}

for (const [name, converter] of Object.entries(CONVERTERS)) {
  oracleTest(`openCheckpoint() reads ${name} as GGUF so that its logits match`, "oracles", async () => {
    const folder = shared(`oracles/${name}/`).pathname;
    const { prompts } = JSON.parse(await Deno.readTextFile(join(folder, "expected.json")));
    await withFile(await convert(folder, converter), async (path) => {
      const checkpoint = await openCheckpoint(path);
      const model = await ReferenceModel.load(checkpoint);
      checkpoint.close();
      for (
        const [prompt, { ids, last_logits }] of Object.entries<{ ids: number[]; last_logits: number[] }>(
          prompts,
        )
      ) {
        const worst = model.logits(ids)[0]
          .reduce((most, x, i) => Math.max(most, Math.abs(x - last_logits[i])), 0);
        assert.ok(worst < LOGITS_TOLERANCE, `${prompt}: logits differ by ${worst}`);
      }
    });
  });
}

oracleTest(
  "openCheckpoint() refuses a GGUF file whose blocks have a tensor that its family does not know",
  "oracles",
  async () => {
    const folder = shared("oracles/falcon/").pathname, { falcon } = CONVERTERS;
    const second = { ...falcon, names: { ...falcon.names, ln_f: "output_norm" } };
    const config = JSON.parse(await Deno.readTextFile(join(folder, "config.json")));
    const tensors = await convertTensors(folder, config, second);
    const norm = tensors.find(({ name }) => name === "blk.0.attn_norm.weight")!;
    const bytes = ggufBytes(
      Object.fromEntries([
        ["general.architecture", "falcon"],
        ...Object.entries(falcon.metadata(config)).map(([key, value]) => [`falcon.${key}`, value]),
      ]),
      [...tensors, { ...norm, name: "blk.0.attn_norm_2.weight" }],
    );
    await withFile(bytes, async (path) => {
      await assert.rejects(openCheckpoint(path), {
        code: "unsupported_architecture",
        message: /attn_norm_2/,
      });
    });
  },
);
