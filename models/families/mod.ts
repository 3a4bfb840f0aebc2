/** Model families. */
export type { Family, FusedName, TensorNames } from "./family.ts";
export { FAMILIES, familyOfConfig, familyOfGguf } from "./registry.ts";
export { specFromConfig } from "./spec_from_config.ts";
export { type WeightLocation, weightLocations } from "./weight_names.ts";
