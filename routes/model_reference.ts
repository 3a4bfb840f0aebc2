/**
 * How requests name models: `name` is its current version, `name@` and the beginning of a hash one version; `:` and a name
 * behind either is one of the model's LoRA adapters on it.
 */
import { OatmillError } from "../errors.ts";

export interface ModelReference {
  readonly name: string;
  /** Beginning of a version; null: the current one. */
  readonly version: string | null;
  /** null: the model alone. */
  readonly adapter: string | null;
}

/** Hexadecimal digits by which versions are shown: two of a name do not meet by chance. */
const SHOWN_DIGITS = 12;
/** The fewest digits are more than git's 7: what addresses a version today should do so tomorrow. */
const VERSION = /^[0-9a-f]{8,64}$/;

export const shortVersion = (version: string): string => version.slice(0, SHOWN_DIGITS);
export const versionId = ({ id, version }: { readonly id: string; readonly version: string }): string =>
  `${id}@${shortVersion(version)}`;

export const adapterId = (model: string, adapter: string): string => `${model}:${adapter}`;

/** @throws {OatmillError} model_not_found when what follows the `@` is no version */
export function parseReference(id: string): ModelReference {
  const colon = id.indexOf(":"), adapter = colon < 0 ? null : id.slice(colon + 1);
  const model = colon < 0 ? id : id.slice(0, colon), at = model.indexOf("@");
  if (at < 0) return { name: model, version: null, adapter };
  const [name, version] = [model.slice(0, at), model.slice(at + 1).toLowerCase()];
  if (VERSION.test(version)) return { name, version, adapter };
  throw new OatmillError(
    "model_not_found",
    `Model ${shown(id)} does not exist: after the "@" stand 8 to 64 hexadecimal digits of a version`,
    "model",
  );
}

/**
 * The one version that begins so.
 * @throws {OatmillError} model_not_found, invalid_request when several do
 */
export function findVersion<T extends { readonly version: string }>(
  { name, version }: { readonly name: string; readonly version: string },
  versions: readonly T[],
): T {
  const found = versions.filter((v) => v.version.startsWith(version));
  if (found.length === 1) return found[0];
  const id = shown(`${name}@${version}`);
  if (found.length > 1) {
    const message = `Model ${id} can be ${found.map((v) => v.version).join(" or ")}: give more digits`;
    throw new OatmillError("invalid_request", message, "model");
  }
  const have = versions.map((v) => shortVersion(v.version)).join(", ");
  throw new OatmillError(
    "model_not_found",
    `Model ${id} does not exist: "${name}" has the versions ${have}`,
    "model",
  );
}

/** A name that a client sent, as messages may repeat it. */
export const shown = (id: string): string => JSON.stringify(id.slice(0, 200));
