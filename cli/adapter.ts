/** `--adapter` of commands that run a model. */
import type { OpenedModel } from "../engine/open_model.ts";
import { withAdapter } from "../engine/with_adapter.ts";
import { readAdapter } from "../models/peft/read_adapter.ts";

const NAME = "adapter";

/**
 * The model as it answers through the adapter of a PEFT folder; itself without one.
 * @throws {OatmillError} what reading the folder throws; invalid_request when the model takes no adapters
 */
export async function throughAdapter<T extends OpenedModel>(
  model: T,
  folder: string | undefined,
): Promise<T> {
  if (folder === undefined) return model;
  const { engine, spec, name } = model;
  await engine.addAdapter(NAME, await readAdapter(folder, { spec, name }));
  return { ...model, engine: withAdapter(engine, NAME) };
}
