/**
 * What a compression's result follows from, as far as it can be told without doing it: a run resumes only what one with
 * the same identity began.
 */
import { join } from "node:path";
import type { Recipe } from "../../models/recipe.ts";
import { VERSION } from "../version.ts";

/** By what it is of; equal as JSON when equal. */
export interface Identity {
  readonly version: unknown;
  readonly recipe: unknown;
  readonly source: unknown;
  readonly texts: unknown;
  readonly machine: unknown;
}
const SAID: Readonly<Record<keyof Identity, string>> = {
  version: "another version of Oatmill",
  recipe: "another recipe",
  source: "another source, or one that has changed",
  texts: "calibration or evaluation text that has changed",
  machine: "another kind of machine",
};

/** Raised when the same recipe comes to give other bits, or units are kept in another way. */
const METHOD_VERSION = 1;

export async function identityOf(source: string, recipe: Recipe): Promise<Identity> {
  const { calibration, evaluate, recover } = recipe;
  const texts = [calibration.text, evaluate.text, recover?.text ?? null].map((text) =>
    text === "self" ? null : text
  );
  return {
    version: [VERSION, METHOD_VERSION, Deno.version],
    recipe,
    source: await stampsOf(source, { inner: false }),
    texts: await Promise.all(texts.map((text) => text === null ? null : stampsOf(text, { inner: true }))),
    machine: [Deno.build.os, Deno.build.arch],
  };
}

/** How the second differs from the first, in words; null when it does not. */
export function differenceOf(first: Identity, second: Identity): string | null {
  const fields = Object.keys(SAID) as (keyof Identity)[];
  const found = fields.find((field) => JSON.stringify(first[field]) !== JSON.stringify(second[field]));
  return found ? SAID[found] : null;
}

type Stamp = readonly [name: string, bytes: number, modifiedMs: number | null];

/**
 * Names, sizes and times of a file, or of what a folder has: hashing a model of 14 GB would take half a minute.
 * @param options.inner also of folders in it
 */
async function stampsOf(path: string, options: { readonly inner: boolean }): Promise<Stamp[] | null> {
  const info = await Deno.stat(path).catch(() => null); // who reads it says what is wrong with it
  if (!info) return null;
  if (!info.isDirectory) return [stamp("", info)];
  const found: Stamp[] = [];
  const visit = async (folder: string, prefix: string): Promise<void> => {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      const path = join(folder, name), shown = prefix + name;
      if (!isDirectory) found.push(stamp(shown, await Deno.stat(path)));
      else if (options.inner) await visit(path, `${shown}/`);
    }
  };
  await visit(path, "");
  return found.sort(([a], [b]) => a < b ? -1 : 1);
}

const stamp = (name: string, { size, mtime }: Deno.FileInfo): Stamp => [
  name,
  size,
  mtime?.getTime() ?? null,
];
