/** The model that comes with Oatmill: compressed at the first start, kept in the data folder. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { CompressProgress } from "../compress/types.ts";
import { recipeSchema } from "../models/recipe.ts";
import { runTask } from "../routes/run_task.ts";
import type { Services } from "../routes/services.ts";
import { removeTree } from "../store/data_folder.ts";

/** Its id; also what a start without other models serves. */
export const BUNDLED_MODEL = "stories-5m";

/**
 * The default recipe on a quarter of the default's calibration text: the first
 * start takes seconds instead of half a minute, and the held-out perplexity is the same.
 */
const BUNDLED_RECIPE = recipeSchema.parse({ calibration: { sequences: 32 } });

export async function ensureBundled(
  { registry, data }: Pick<Services, "registry" | "data">,
  options: { signal: AbortSignal; onProgress: (p: CompressProgress) => void },
): Promise<void> {
  if (registry.has(BUNDLED_MODEL)) return;
  const folder = await data.temporary();
  try {
    const out = join(folder, "artifact");
    const { header } = await runTask({
      archive: null,
      source: fileURLToPath(new URL("../models/default", import.meta.url)),
      out,
      name: BUNDLED_MODEL,
      recipe: BUNDLED_RECIPE,
      maxBytes: 0,
      maxFiles: 0,
    }, options);
    if (!registry.has(BUNDLED_MODEL)) await registry.add(BUNDLED_MODEL, out, header); // else it is somebody's own
  } finally {
    await removeTree(folder);
  }
}
