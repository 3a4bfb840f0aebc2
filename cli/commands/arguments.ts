/** What the texts of options and arguments become; what is refused says what to write instead. */
import { InvalidArgumentError } from "commander";
import { TILE_SIZES, type TileSize } from "../../kernels/abi.ts";
import type { Shape2 } from "../../kernels/layout.ts";

export function integer(min: number, max = Number.MAX_SAFE_INTEGER) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() !== "" && Number.isSafeInteger(value) && value >= min && value <= max) return value;
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    throw new InvalidArgumentError(`Use a whole number ${range}.`);
  };
}
export function number(min: number, max: number) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() !== "" && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Use a number from ${min} to ${max}.`);
  };
}
export const share = number(0, 1);
/** Up to what a timer holds. */
export const seconds = number(0, 2_000_000);
export function idList(text: string): number[] {
  const ids = text.split(",").map((t) => t.trim() === "" ? NaN : Number(t));
  if (ids.every((id) => Number.isSafeInteger(id) && id >= 0)) return ids;
  throw new InvalidArgumentError("Use token ids with commas between them, as in 1,2,3.");
}
export function batchList(text: string): TileSize[] {
  const sizes = text.split(",").map(Number);
  const known = (size: number): size is TileSize => (TILE_SIZES as readonly number[]).includes(size);
  if (sizes.every(known)) return sizes;
  throw new InvalidArgumentError(`Use some of ${[...TILE_SIZES].reverse().join(",")}.`);
}
export function shapeList(text: string): Shape2[] {
  return text.split(",").map((shape) => {
    const match = /^([1-9]\d{0,5})x([1-9]\d{0,5})$/.exec(shape);
    if (match) return [Number(match[1]), Number(match[2])] as const;
    throw new InvalidArgumentError("Use rows x columns, as in 2048x2048,64x2048.");
  });
}

/** Rates with commas between them. */
export function rateList(text: string): number[] {
  const rates = text.split(",").map((t) => t.trim() === "" ? NaN : Number(t));
  if (rates.every((rate) => rate >= 0 && rate <= 0.95)) return rates;
  throw new InvalidArgumentError("Use rates from 0 to 0.95 with commas between them, as in 0.5,0.7.");
}
export interface AdapterArgument {
  readonly model: string;
  readonly name: string;
  readonly folder: string;
}
/** Of an option that may come several times. */
export function adapterOf(text: string, before: readonly AdapterArgument[] = []): AdapterArgument[] {
  const { model, name, folder } = /^(?<model>[^:=]+):(?<name>[^:=]+)=(?<folder>.+)$/.exec(text)?.groups ?? {};
  if (folder) return [...before, { model, name, folder }];
  throw new InvalidArgumentError("Use model:name=folder, as in llama:french=adapters/french.");
}
export function originList(text: string): string[] {
  const origins = text.split(",").map((t) => t.trim());
  if (origins.every((o) => /^https?:/.test(o) && URL.canParse(o) && new URL(o).origin === o)) return origins;
  throw new InvalidArgumentError(
    "Use scheme and host, as in https://chat.example.org,http://localhost:3000.",
  );
}
export function listOf(choices: readonly string[]) {
  return (text: string): string[] => {
    const names = text === "" ? [] : text.split(",").map((t) => t.trim());
    if (names.every((name) => choices.includes(name))) return names;
    throw new InvalidArgumentError(`Use one or more of ${choices.join(", ")} with commas between them.`);
  };
}

/** Names of files without their folder and ending. */
export function nameList(text: string): string[] {
  const names = [...new Set(text.split(",").map((t) => t.trim()))];
  if (names.every((name) => /^[\w-][\w.-]*$/.test(name))) return names;
  throw new InvalidArgumentError("Use names with commas between them, as in arc_easy,piqa.");
}
