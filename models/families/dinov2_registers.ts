/** DINOv2 with register tokens, which have no position; positions shrink through a filter. */
import { dinov2 } from "./dinov2.ts";
import type { Family } from "./family.ts";

const prefixes = ["dinov2_with_registers.", ""];

export const dinov2Registers: Family = {
  ...dinov2,
  name: "dinov2_with_registers",
  models: "DINOv2 with registers",
  modelTypes: ["dinov2_with_registers"],
  architectures: ["Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersModel"],
  encoder: { ...dinov2.encoder!, antialias: true },
  defaults: { ...dinov2.defaults, num_register_tokens: 4 },
  variants: dinov2.variants!.map(({ when, then }) => ({
    when,
    then: { ...then, names: { ...then.names!, prefixes } },
  })),
  names: { ...dinov2.names, prefixes },
};
