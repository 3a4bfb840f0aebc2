/**
 * A data folder in which a server finds the bundled model at once. Its first start makes it by a job of the lowest priority,
 * which takes minutes where tests of others fill the machine. Tests only.
 */
import { join } from "node:path";
import { BUNDLED_MODEL } from "../../cli/bundled.ts";
import { compress } from "../../compress/pipeline.ts";
import type { DenseValues } from "../../models/pack_dense.ts";
import { recipeSchema } from "../../models/recipe.ts";
import { Server } from "../../routes/server.ts";
import { setLogSink } from "../../telemetry/log.ts";
import { ROOT } from "../server_process.ts";

/** The model's weights dense: nothing to calibrate, little to measure. */
const recipeOf = (values: DenseValues) =>
  recipeSchema.parse({ method: "none", values, evaluate: { tokens: 64 } });

/**
 * @param values of each version that the model has, the current one last
 * @returns a new temporary folder
 */
export async function dataFolderWithModel(values: readonly DenseValues[] = ["int8"]): Promise<string> {
  const data = await Deno.makeTempDir();
  const formerSink = setLogSink(() => {});
  try {
    await using server = await Server.open({ data, otlp: null, engine: {}, maxLoaded: 1, idleMs: 0 });
    const { registry, data: folders } = server.services;
    const source = join(ROOT, "models/default");
    for (const recipe of values.map(recipeOf)) {
      const out = join(await folders.temporary(), "artifact");
      const { header } = await compress({ source, out, name: BUNDLED_MODEL, recipe });
      await registry.add(BUNDLED_MODEL, out, header);
    }
    return data;
  } finally {
    setLogSink(formerSink);
  }
}
