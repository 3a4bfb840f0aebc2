/** What cannot be recovered, said before any work is done. */
import { OatmillError } from "../../errors.ts";
import type { Checkpoint } from "../../models/checkpoint.ts";
import type { Artifact } from "../../models/formats/artifact.ts";

/** @throws {OatmillError} invalid_recipe: a model that writes no text has no next tokens to learn */
export function checkRecoverSource({ spec, path }: Pick<Checkpoint, "spec" | "path">): void {
  if (spec.attention.causal) return;
  throw new OatmillError(
    "invalid_recipe",
    `Cannot recover "${path}": it is an encoder, only models that write text can be recovered`,
    "recover",
  );
}

/** @throws {OatmillError} invalid_request: an encoder, whole heads and channels removed, or no layer that is S + L */
export function checkRecoverable({ path, spec, tensors }: Pick<Artifact, "path" | "spec" | "tensors">): void {
  const refused = (why: string) => new OatmillError("invalid_request", `Cannot recover "${path}": ${why}`);
  if (!spec.attention.causal) throw refused("it is an encoder, only models that write text can be recovered");
  if (spec.blockSizes) throw refused("whole heads and channels were removed, only S + L can be recovered");
  if (tensors.some(({ name }) => name.endsWith(".s"))) return;
  throw refused("all of its layers are dense, only layers that are S + L can be recovered");
}
