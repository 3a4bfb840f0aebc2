/**
 * A data folder in which a server finds the bundled model at once. Its first start makes it by a job of the lowest priority,
 * which takes minutes where tests of others fill the machine. Tests only.
 */
import { join } from "node:path";
import { BUNDLED_MODEL } from "../../cli/bundled.ts";
import { compress } from "../../compress/pipeline.ts";
import { recipeSchema } from "../../models/recipe.ts";
import { Server } from "../../routes/server.ts";
import { setLogSink } from "../../telemetry/log.ts";
import { ROOT } from "../server_process.ts";

/** The model's weights dense, in int8: nothing to calibrate, little to measure. */
const RECIPE = recipeSchema.parse({ method: "none", values: "int8", evaluate: { tokens: 64 } });

/** @returns a new temporary folder */
export async function dataFolderWithModel(): Promise<string> {
  const data = await Deno.makeTempDir();
  const formerSink = setLogSink(() => {});
  try {
    await using server = await Server.open({ data, otlpEndpoint: null, engine: {}, maxLoaded: 1, idleMs: 0 });
    const { registry, data: folders } = server.services;
    const out = join(await folders.temporary(), "artifact");
    const source = join(ROOT, "models/default");
    const { header } = await compress({ source, out, name: BUNDLED_MODEL, recipe: RECIPE });
    await registry.add(BUNDLED_MODEL, out, header);
    return data;
  } finally {
    setLogSink(formerSink);
  }
}
