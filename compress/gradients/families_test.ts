/** The gradient of every family's blocks, with the weights of its recorded model, against central differences in f64. */
import { openCheckpoint } from "../../models/open.ts";
import type { ModelSpec } from "../../models/spec.ts";
import { SYNTHETIC_SPECS } from "../../models/synthetic_specs.ts";
import { DECODER_ORACLES } from "../../models/testing/decoder_oracles.ts";
import { ENCODER_ORACLES } from "../../models/testing/encoder_oracles.ts";
import { randomCheckpoint } from "../../models/testing/random_checkpoint.ts";
import { oracleTest, shared } from "../../models/testing/shared.ts";
import { blockCase, blockCheck } from "./testing/block_case.ts";
import { checkGradientsTogether } from "./testing/check_gradient.ts";

const ROWS = { sequences: 1, length: 4 };

/** The first block of each kind. */
function blocksOf({ blockAttention }: ModelSpec): number[] {
  return blockAttention ? blockAttention.kinds.map((_, kind) => blockAttention.kindOf.indexOf(kind)) : [0];
}

for (const family of [...DECODER_ORACLES, ...ENCODER_ORACLES]) {
  oracleTest(`the gradient of blocks of ${family}`, `oracles/${family}`, async () => {
    const checkpoint = await openCheckpoint(shared(`oracles/${family}/`).pathname);
    for (const block of blocksOf(checkpoint.spec)) {
      checkGradientsTogether(blockCheck(await blockCase(checkpoint, { ...ROWS, block })));
    }
    checkpoint.close();
  });
}

for (const shape of ["tiny", "tiny-encoder"] as const) {
  Deno.test(`the gradient of blocks of the synthetic shape ${shape}`, async () => {
    checkGradientsTogether(blockCheck(await blockCase(randomCheckpoint(SYNTHETIC_SPECS[shape]), ROWS)));
  });
}
