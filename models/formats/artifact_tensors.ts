/** Packed tensors of an artifact, one at a time, for tools that look at a model without running it. */
import type { Artifact } from "./artifact.ts";
import type { TensorEntry } from "./artifact_header.ts";

export interface TensorReader extends AsyncDisposable {
  /** The bytes of a tensor as the kernels read them; null when there is none of that name. */
  read(name: string): { readonly entry: TensorEntry; readonly bytes: Uint8Array<ArrayBuffer> } | null;
}

/**
 * Reads from the file where its hash is known to be right; an artifact that was never loaded here, or of an earlier format,
 * is loaded whole.
 * @throws {OatmillError} invalid_artifact, also when the file was changed meanwhile (at the end)
 */
export async function openTensors(
  artifact: Pick<Artifact, "tensors" | "file" | "load">,
): Promise<TensorReader> {
  const entries = new Map(artifact.tensors.map((entry) => [entry.name, entry]));
  const { file } = artifact;
  const loaded = new Map<string, Uint8Array<ArrayBuffer>>();
  if (!file) {
    await artifact.load(({ name, bytes }) => {
      const tensor = new Uint8Array(bytes);
      loaded.set(name, tensor);
      return tensor;
    });
  }
  const source = file && await Deno.open(file.path);
  return {
    read(name) { // synchronous: whoever reads next would move the position in between
      const entry = entries.get(name);
      if (!entry) return null;
      const bytes = loaded.get(name) ?? new Uint8Array(entry.bytes);
      if (source) {
        source.seekSync(file.dataStart + entry.offset, Deno.SeekMode.Start);
        for (let done = 0; done < bytes.length;) {
          done += source.readSync(bytes.subarray(done)) ?? bytes.length;
        }
      }
      return { entry, bytes };
    },
    async [Symbol.asyncDispose]() {
      source?.close();
      await file?.confirm();
    },
  };
}
