/**
 * Vector-Jacobian products: for each ONNX operator what its inputs' gradients are, given its output's. `dy` may be smaller
 * than the output where it is the same along an axis; rules that need it whole repeat it.
 */
import type { Rule } from "./derive.ts";
import { CHOICE_RULES } from "./choice_rules.ts";
import { ELEMENTWISE_RULES } from "./elementwise_rules.ts";
import { LAYOUT_RULES } from "./layout_rules.ts";
import { PRODUCT_RULES } from "./product_rules.ts";
import { REDUCTION_RULES } from "./reduction_rules.ts";
import { ROW_RULES } from "./row_rules.ts";

export const RULES: Readonly<Record<string, Rule>> = {
  ...CHOICE_RULES,
  ...ELEMENTWISE_RULES,
  ...LAYOUT_RULES,
  ...PRODUCT_RULES,
  ...REDUCTION_RULES,
  ...ROW_RULES,
};
