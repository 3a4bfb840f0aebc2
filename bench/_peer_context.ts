/** What the peers of one benchmark share. */
import { join } from "node:path";
import type { TuningOptions } from "../engine/tuning.ts";
import type { KvFormat } from "../kernels/kv_layout.ts";
import { openCheckpoint } from "../models/open.ts";
import type { BlockTypeName } from "../models/formats/gguf_blocks.ts";
import { writeGguf } from "./_gguf_writer.ts";
import { type OrtBits, type OrtLayers, writeOrtLayers } from "./_ort_layers.ts";

/** A peer cannot run here; the message says why, and what would let it. */
export class PeerUnavailable extends Error {}

export interface PeerContext {
  /** The checkpoint with the weights that all run. */
  readonly path: string;
  readonly threads: number;
  /** Of own models. */
  readonly kvFormat?: KvFormat;
  readonly tuning?: TuningOptions;
  readonly streams: number;
  /** Tokens of the longest prompt or generation. */
  readonly contextLength: number;
  /** Tokens in the KV cache at most: of all streams together. */
  readonly kvTokens: number;
  readonly files: PeerFiles;
}

/** The checkpoint in the formats of peers, GGUF files each written once, when they are first asked for. */
export class PeerFiles implements AsyncDisposable {
  readonly #written = new Map<BlockTypeName, Promise<string>>();
  #folder: string | null = null;

  constructor(readonly path: string) {}

  /** @throws {PeerUnavailable} when there is no GGUF file to make it from */
  gguf(type: BlockTypeName): Promise<string> {
    if (!this.path.toLowerCase().endsWith(".gguf")) throw new PeerUnavailable("it reads .gguf files only");
    let written = this.#written.get(type);
    if (!written) this.#written.set(type, written = this.#write(type));
    return written;
  }

  /** The linear layers as an ONNX model. */
  async ortLayers(bits: OrtBits): Promise<OrtLayers> {
    const folder = join(await this.#makeFolder(), `ort-int${bits}`);
    await Deno.mkdir(folder);
    const checkpoint = await openCheckpoint(this.path);
    try {
      return await writeOrtLayers(checkpoint, folder, bits);
    } finally {
      checkpoint.close();
    }
  }

  async #write(type: BlockTypeName): Promise<string> {
    const file = join(await this.#makeFolder(), `${type}.gguf`);
    await writeGguf(this.path, file, type);
    return file;
  }

  async #makeFolder(): Promise<string> {
    return this.#folder ??= await Deno.makeTempDir({ prefix: "oatmill-peers-" });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#folder !== null) await Deno.remove(this.#folder, { recursive: true });
  }
}
