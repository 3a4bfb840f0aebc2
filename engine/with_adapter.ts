/** An engine whose every request goes through one of its LoRA adapters, for callers that need not know of adapters. */
import { OatmillError } from "../errors.ts";
import type { Engine } from "./types.ts";

/** @param adapter what `addAdapter()` knows it by */
export function withAdapter(engine: Engine, adapter: string): Engine {
  return {
    contextLength: engine.contextLength,
    vocabSize: engine.vocabSize,
    get failure() {
      return engine.failure;
    },
    generate: (request, signal) => engine.generate({ ...request, adapter }, signal),
    score: (ids, options) => engine.score(ids, { ...options, adapter }),
    logits: (ids, options) => engine.logits(ids, { ...options, adapter }),
    encode: () =>
      Promise.reject(new OatmillError("invalid_request", "Adapters are served on decoders alone", "model")),
    vector: (name) => engine.vector(name),
    addAdapter: (name, added) => engine.addAdapter(name, added),
    removeAdapter: (name) => engine.removeAdapter(name),
    adapters: () => engine.adapters(),
    stats: () => engine.stats(),
    close: () => engine.close(),
  };
}
