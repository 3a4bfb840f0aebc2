/** `logits`: what the model says after some tokens, for oracles and debugging. */
import { openModel, type OpenModelOptions } from "../engine/open_model.ts";
import { OatmillError } from "../errors.ts";
import { printResult, table } from "./output.ts";
import { tuningOf } from "./tuning.ts";

export interface LogitsOptions extends Pick<OpenModelOptions, "values" | "threads"> {
  readonly autotune?: boolean;
  readonly ids: readonly number[];
  readonly all?: boolean;
  readonly json?: boolean;
}

export async function logits(path: string, options: LogitsOptions): Promise<void> {
  const { ids, all = false } = options;
  const model = await openModel(path, {
    values: options.values,
    threads: options.threads,
    tuning: tuningOf(options),
  });
  try {
    const { vocabSize } = model.engine;
    const outside = ids.find((id) => id >= vocabSize);
    if (outside !== undefined) {
      throw new OatmillError("invalid_request", `Token ${outside} is not below ${vocabSize}`);
    }
    const values = await model.engine.logits(ids, all ? { from: 0 } : {});
    const rows = Array.from(
      { length: values.length / vocabSize },
      (_, i) => values.subarray(i * vocabSize, (i + 1) * vocabSize),
    );
    const lines = () => {
      const last = rows.at(-1)!;
      const best = [...last.keys()].sort((a, b) => last[b] - last[a]).slice(0, 10);
      return table([
        ["id", "logit", "token"],
        ...best.map((id) => [id, last[id], model.tokenizer?.tokenText(id) ?? ""]),
      ]);
    };
    printResult({ ids, logits: all ? rows : rows[0] }, { json: options.json, lines });
  } finally {
    await model.engine.close();
  }
}
