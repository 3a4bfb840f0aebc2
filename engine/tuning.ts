/**
 * Which variants of the kernels a model runs with: measured once for each kind of weights (kernels/tune.ts), and kept in a
 * file, so that the next start reads instead of measuring. Results are the same bits whatever is chosen.
 */
import { z } from "@hono/zod-openapi";
import { formatName } from "../kernels/layout.ts";
import { type KernelChoice, readSourceHash } from "../kernels/load.ts";
import { LINEAR_MODULES } from "../kernels/manifest.ts";
import { formatClass, toChoice, tune, type Tuned, type TuneOptions } from "../kernels/tune.ts";
import type { TensorEntry } from "../models/formats/artifact_header.ts";

export interface TuningOptions extends TuneOptions {
  /** false: the manifest's first variants, nothing measured, read or written; default true. */
  readonly autotune?: boolean;
  /** Where results are kept between starts; absent: nowhere. */
  readonly file?: string;
  /** Hears what was chosen. */
  readonly onChoice?: (chosen: KernelsChosen) => void;
}

/** `variants` by format: of one row / of several. */
export interface KernelsChosen {
  readonly from: "fixed" | "cache" | "measured";
  readonly variants: Readonly<Record<string, string>>;
}

const fileSchema = z.strictObject({
  version: z.literal(1),
  machine: z.string(),
  classes: z.record(
    z.string(),
    z.strictObject({ format: z.string(), decode: z.string(), batched: z.string(), kernels: z.string() }),
  ),
});
type Classes = z.infer<typeof fileSchema>["classes"];

/** What this process measured without a file: a second model of the same kinds of weights waits for nothing. */
let known: Tuned = {};

/** @param tensors of the model: the formats with most bytes are measured first */
export async function chooseKernels(
  tensors: readonly TensorEntry[],
  options: TuningOptions = {},
): Promise<KernelChoice> {
  const formats = formatsByBytes(tensors);
  const { autotune = true, file = "", onChoice } = options;
  if (!autotune) {
    onChoice?.({ from: "fixed", variants: {} });
    return {};
  }
  const classes = new Set(formats.map(formatClass));
  const complete = (tuned: Tuned) => [...classes].every((one) => one in tuned || !isTunable(one));
  let tuned = file === "" ? known : await readTuned(file);
  const from = complete(tuned) ? "cache" : "measured";
  if (from === "measured") {
    tuned = await tune(formats, tuned, options);
    if (file === "") known = tuned;
    else await writeTuned(file, tuned);
  }
  const choice = toChoice(formats, tuned);
  const variants = Object.entries(choice).map((
    [name, { decode, batched }],
  ) => [name, `${decode} / ${batched}`]);
  onChoice?.({ from, variants: Object.fromEntries(variants) });
  return choice;
}

/** Some format of the class has more than one variant. */
const isTunable = (one: string): boolean => {
  const [first] = LINEAR_MODULES.filter(({ name }) => formatClass(name) === one);
  return LINEAR_MODULES.some(({ name, variant }) => name === first.name && variant !== first.variant);
};

function formatsByBytes(tensors: readonly TensorEntry[]): string[] {
  const bytes = new Map<string, number>();
  for (const { format, bytes: size } of tensors) {
    if (format.kind === "vector") continue;
    const name = formatName(format);
    bytes.set(name, (bytes.get(name) ?? 0) + size);
  }
  return [...bytes].sort(([, a], [, b]) => b - a).map(([name]) => name);
}

/**
 * What a result holds for. The processor's name is not to be read with the permissions of `start`; a folder that moves to
 * another machine of the same kind keeps its choice, which then is perhaps not the fastest, and never wrong.
 */
const machine = (): string =>
  [Deno.build.target, navigator.hardwareConcurrency, Deno.version.deno, Deno.version.v8].join(" ");

/** Changes with the code of any variant of the format. */
async function kernelsHash(format: string): Promise<string> {
  const files = LINEAR_MODULES.filter(({ name }) => name === format).map(({ file }) => file);
  return (await Promise.all(files.map(readSourceHash))).map((hash) => hash.slice(0, 16)).join(" ");
}

/** What was measured, for this machine and these kernels; a file that is missing, broken or foreign has none. */
export async function readTuned(file: string): Promise<Tuned> {
  let text: string;
  try {
    text = await Deno.readTextFile(file);
  } catch {
    return {};
  }
  const parsed = fileSchema.safeParse(parseJson(text));
  if (!parsed.success || parsed.data.machine !== machine()) return {};
  const fresh = await Promise.all(
    Object.entries(parsed.data.classes).map(async ([one, { kernels, ...result }]) => {
      const exists = LINEAR_MODULES.some(({ name }) => name === result.format);
      return exists && kernels === await kernelsHash(result.format) ? [[one, result] as const] : [];
    }),
  );
  return Object.fromEntries(fresh.flat());
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Replaces the file at once; where that is not possible the next start measures again. */
async function writeTuned(file: string, tuned: Tuned): Promise<void> {
  const entries = Object.entries(tuned).map(async ([one, result]) =>
    [one, { ...result, kernels: await kernelsHash(result.format) }] as const
  );
  const classes: Classes = Object.fromEntries(await Promise.all(entries));
  const temporary = `${file}.${crypto.randomUUID()}`;
  try {
    await Deno.writeTextFile(temporary, JSON.stringify({ version: 1, machine: machine(), classes }, null, 1));
    await Deno.rename(temporary, file);
  } catch {
    await Deno.remove(temporary).catch(() => {});
  }
}
