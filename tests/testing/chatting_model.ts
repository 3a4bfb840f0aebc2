/** A small real model that chats, for tests of what clients see. Tests only. */
import { join } from "node:path";
import { type OpenedModel, openModel } from "../../engine/open_model.ts";
import { openCheckpoint } from "../../models/open.ts";
import { loadTokenizer } from "../../models/tokenizer.ts";
import { ROOT } from "../server_process.ts";

const TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}";

/** The bundled model, with a chat template that any base model can go on from. */
export async function openChatting(chatTemplate = TEMPLATE): Promise<OpenedModel> {
  const folder = join(ROOT, "models/default");
  const checkpoint = await openCheckpoint(folder);
  const tokenizer = loadTokenizer({ ...checkpoint.tokenizerFiles!, chatTemplate });
  checkpoint.close();
  return { ...await openModel(folder, { threads: 1, values: "int8" }), tokenizer };
}
