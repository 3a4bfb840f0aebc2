/** PyTorch's own checkpoints: known by their names, never opened. */
import { OatmillError } from "../../errors.ts";

const ENDINGS = [".bin", ".pt", ".pth", ".ckpt", ".pkl"] as const;

/** A file of this name would have to be unpickled. */
export const isPickleName = (name: string): boolean =>
  ENDINGS.some((ending) => name.toLowerCase().endsWith(ending));

/** The refusal: why, and the way out. */
export const pickleRefused = (name: string, param: string | null = null): OatmillError =>
  new OatmillError(
    "unsupported_format",
    `Cannot read ${JSON.stringify(name.slice(0, 100))}: PyTorch checkpoints (${
      ENDINGS.join(", ")
    }) are pickles, ` +
      "and reading a pickle runs code; convert it to safetensors first, on a machine where that code may run: " +
      'in Python, transformers.AutoModel.from_pretrained("OLD").save_pretrained("NEW") of the model\'s own class, ' +
      "such as AutoModelForCausalLM",
    param,
  );

/** @throws {OatmillError} unsupported_format when a folder's weights are pickles only */
export async function refusePickles(folder: string): Promise<void> {
  const names = (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
  const pickle = names.filter(isPickleName).sort()[0];
  if (pickle && !names.some((name) => name.endsWith(".safetensors"))) throw pickleRefused(pickle);
}
