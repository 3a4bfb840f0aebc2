/** Entry of the thread that tokenizes long texts of one model (engine/long_texts.ts). */
import { readTokenizerFiles } from "../models/tokenizer_files.ts";
import { loadTokenizer, type Tokenizer } from "../models/tokenizer.ts";

export type ToLongTexts =
  /** First of all: the folder of the artifact whose tokenizer it is. */
  | { readonly type: "open"; readonly folder: string }
  | { readonly type: "encode"; readonly texts: readonly string[]; readonly addSpecialTokens: boolean }
  | { readonly type: "decode"; readonly ids: Int32Array };
export type FromLongTexts =
  | { readonly type: "encoded"; readonly ids: readonly Int32Array[] }
  | { readonly type: "decoded"; readonly text: string }
  | { readonly type: "failed"; readonly message: string };

const scope = self as unknown as Worker; // the compiler's DOM library types `self` as a window
let tokenizer: Promise<Tokenizer> | null = null;

scope.onmessage = async ({ data }: MessageEvent<ToLongTexts>) => {
  if (data.type === "open") {
    tokenizer = open(data.folder);
    tokenizer.catch(() => {}); // whoever asks first hears it
    return;
  }
  try {
    const answer = data.type === "encode" ? encode(await tokenizer!, data) : decode(await tokenizer!, data);
    scope.postMessage(answer);
  } catch (error) {
    scope.postMessage({ type: "failed", message: (error as Error).message } satisfies FromLongTexts);
  }
};

async function open(folder: string): Promise<Tokenizer> {
  const files = await readTokenizerFiles(folder);
  if (!files) throw new Error("its files are gone");
  return loadTokenizer(files, { checked: true });
}

function encode(
  known: Tokenizer,
  { texts, addSpecialTokens }: ToLongTexts & { type: "encode" },
): FromLongTexts {
  return { type: "encoded", ids: texts.map((t) => Int32Array.from(known.encode(t, { addSpecialTokens }))) };
}

const decode = (known: Tokenizer, { ids }: ToLongTexts & { type: "decode" }): FromLongTexts => ({
  type: "decoded",
  text: known.decode(Array.from(ids)),
});
