/** What is exported, opened by transformers: the same logits, and no weight missing. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { DECODER_ORACLES } from "../models/testing/decoder_oracles.ts";
import { shared } from "../models/testing/shared.ts";
import { exportModel } from "./export.ts";
import { logitsOfPath } from "./testing/logits.ts";
import { writeArtifactOf } from "./testing/sparse_low_rank.ts";

const SCRIPT = fileURLToPath(new URL("./testing/transformers_logits.py", import.meta.url));
const FIND =
  "import importlib.util as u, sys; sys.exit(not (u.find_spec('torch') and u.find_spec('transformers')))";
/** f32 against f32, S + U V summed in another order. */
const LOGITS_TOLERANCE = 2e-3;
const IDS = [3, 17, 5, 60, 8, 21, 34, 2, 9, 41];

/** An interpreter with torch and transformers: OATMILL_PYTHON, or the one on the path. */
const PYTHON = Deno.env.get("OATMILL_PYTHON") ?? "python3";

function missing(): string | null {
  try {
    Deno.statSync(shared("oracles"));
  } catch {
    return "../shared/oracles is absent";
  }
  try {
    const { success } = new Deno.Command(PYTHON, { args: ["-c", FIND], stderr: "null" }).outputSync();
    return success ? null : `${PYTHON} has no torch and transformers (OATMILL_PYTHON names another one)`;
  } catch {
    return `${PYTHON} is not installed`;
  }
}

const why = missing();

Deno.test({
  name: `transformers computes the same logits from what is exported${why ? ` (ignored: ${why})` : ""}`,
  ignore: why !== null,
  async fn() {
    const folder = await Deno.makeTempDir();
    try {
      for (const oracle of DECODER_ORACLES) {
        const own = join(folder, `${oracle}.s`);
        await Deno.mkdir(own);
        const model = await writeArtifactOf(shared(`oracles/${oracle}`).pathname, own);
        await exportModel({ model, to: "safetensors", out: join(folder, oracle), type: "f32" });
      }
      const folders = DECODER_ORACLES.map((oracle) => join(folder, oracle));
      const { success, stdout, stderr } = await new Deno.Command(PYTHON, {
        args: [SCRIPT, JSON.stringify(IDS), ...folders],
      }).output();
      assert.ok(success, new TextDecoder().decode(stderr));
      const answers = JSON.parse(new TextDecoder().decode(stdout));
      for (const [i, oracle] of DECODER_ORACLES.entries()) {
        const own = await logitsOfPath(join(folder, `${oracle}.s/artifact`), IDS);
        assert.deepEqual(answers[i].missing, [], oracle);
        own.forEach((value, id) =>
          assert.ok(
            Math.abs(value - answers[i].logits[id]) < LOGITS_TOLERANCE,
            `${oracle}: logit ${id} is ${value}, transformers has ${answers[i].logits[id]}`,
          )
        );
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
