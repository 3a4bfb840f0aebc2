/** Opens the peers of a benchmark; those that cannot run here are left out with a word. */
import { openOwn } from "./own_engine.ts";
import type { Contender } from "./contender.ts";
import { type PeerContext, PeerUnavailable } from "./_peer_context.ts";
import { requirePackage, startPeer } from "./_peer_process.ts";
import type { BlockTypeName } from "../models/formats/gguf_blocks.ts";
import type { OrtBits } from "./_ort_layers.ts";
import type { PeerName } from "./peer_names.ts";

/** Where distributions put it. */
const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

const own = (values: "int8" | "int4") => (c: PeerContext): Promise<Contender> =>
  openOwn(c.path, "oatmill", {
    values,
    threads: c.threads,
    kvFormat: c.kvFormat,
    tuning: c.tuning,
    maxSequences: c.streams,
    contextLength: c.contextLength,
  });

/** llama.cpp's prebuilt native binaries, by node-llama-cpp. */
const llamaCpp = (format: BlockTypeName) => async (c: PeerContext): Promise<Contender> => {
  await requirePackage("node-llama-cpp");
  const args = [await c.files.gguf(format), c.threads, c.contextLength];
  return await startPeer({ name: "llama.cpp", format, script: "llama_cpp.mjs", args });
};

/** llama.cpp in WASM, in headless Chromium. */
const wllama = (format: BlockTypeName) => async (c: PeerContext): Promise<Contender> => {
  await requirePackage("@wllama/wllama");
  const found = await Promise.all(CHROMIUM.map((path) => Deno.stat(path).then(() => path, () => null)));
  const chromium = found.find((path) => path !== null);
  if (!chromium) throw new PeerUnavailable(`Chromium is not installed (looked for ${CHROMIUM.join(", ")})`);
  const args = [await c.files.gguf(format), c.threads, c.streams, c.kvTokens, chromium];
  return await startPeer({ name: "wllama", format, script: "wllama.mjs", args });
};

/** ONNX Runtime's products of quantised weights: the linear layers alone, an upper bound for a decoder. */
const ort = (bits: OrtBits) => async (c: PeerContext): Promise<Contender> => {
  const { model, ...widths } = await c.files.ortLayers(bits);
  return await startPeer({
    name: "onnxruntime",
    format: `int${bits}, linear layers only`,
    script: "ort.mjs",
    args: [model, c.threads, JSON.stringify(widths)],
  });
};

const START: Readonly<Record<PeerName, (context: PeerContext) => Promise<Contender>>> = {
  "own:int8": own("int8"),
  "own:int4": own("int4"),
  "llama.cpp:q8_0": llamaCpp("Q8_0"),
  "llama.cpp:q4_0": llamaCpp("Q4_0"),
  "llama.cpp:q4_1": llamaCpp("Q4_1"),
  "wllama:q8_0": wllama("Q8_0"),
  "ort:int8": ort(8),
  "ort:int4": ort(4),
};

/**
 * In the order of `names`. What was opened before another one failed is closed.
 * @param onSkip hears of every peer that is left out, and why
 */
export async function openPeers(
  names: readonly PeerName[],
  context: PeerContext,
  onSkip?: (message: string) => void,
): Promise<Contender[]> {
  const peers: Contender[] = [];
  try {
    for (const name of names) {
      try {
        peers.push(await START[name](context));
      } catch (error) {
        if (!(error instanceof PeerUnavailable)) throw error;
        onSkip?.(`${name} is left out: ${error.message}`);
      }
    }
    return peers;
  } catch (error) {
    await Promise.all(peers.map((p) => p.close()));
    throw error;
  }
}
