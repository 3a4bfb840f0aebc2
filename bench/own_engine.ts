/** Oatmill's own engine as a contender. */
import { type OpenedModel, openModel, type OpenModelOptions } from "../engine/open_model.ts";
import { type Engine, type GenerateRequest, GREEDY } from "../engine/types.ts";
import { type Contender, DECODE_PROMPT, Prompts } from "./contender.ts";

export class OwnEngine implements Contender {
  readonly #prompts: Prompts;
  #requests = 0;

  /** @param adapters names of LoRA adapters that generations go through in turn; none: the model alone */
  constructor(
    readonly name: string,
    readonly format: string,
    readonly engine: Engine,
    readonly adapters: readonly string[] = [],
  ) {
    this.#prompts = new Prompts(engine.vocabSize);
  }
  #request(promptTokens: number, maxTokens: number): GenerateRequest {
    return {
      promptIds: this.#prompts.next(promptTokens),
      maxTokens,
      stopIds: [],
      sampling: GREEDY,
      logprobs: null,
      adapter: this.adapters[this.#requests++ % this.adapters.length],
    };
  }
  async prefill(tokens: number): Promise<number> {
    const { prefillMs } = await this.#timings(this.#request(tokens, 1));
    return tokens * 1000 / prefillMs;
  }
  /** @param promptTokens what stands before: attention reads it for every token */
  async decode(tokens: number, promptTokens = DECODE_PROMPT): Promise<number> {
    const { decodeMs, completionTokens } = await this.#timings(this.#request(promptTokens, tokens));
    return (completionTokens - 1) * 1000 / decodeMs;
  }
  async firstTokenMs(promptTokens: number): Promise<number> {
    const start = performance.now();
    for await (const event of this.engine.generate(this.#request(promptTokens, 1))) {
      if (event.type === "token") return performance.now() - start;
    }
    throw new RangeError("The engine made no token");
  }
  /** Tokens per second of all streams together. */
  async streams(count: number, tokens: number): Promise<number> {
    const start = performance.now();
    const requests = Array.from({ length: count }, () => this.#request(DECODE_PROMPT, tokens));
    await Promise.all(requests.map((r) => this.#timings(r)));
    return count * tokens * 1000 / (performance.now() - start);
  }
  async #timings(request: GenerateRequest) {
    for await (const event of this.engine.generate(request)) if (event.type === "end") return event.timings;
    throw new RangeError("The generation had no end");
  }
  close(): Promise<void> {
    return this.engine.close();
  }
}

/** Without speculation: what a small model makes of random prompts repeats itself more than real text. */
export async function openOwn(path: string, name: string, options: OpenModelOptions): Promise<OwnEngine> {
  const model = await openModel(path, { ...options, speculation: false });
  return new OwnEngine(name, formatOf(model, options.values), model.engine);
}

/** How a model's weights are stored, for people. @param values of a checkpoint */
export function formatOf(
  { header }: Pick<OpenedModel, "header">,
  values: OpenModelOptions["values"],
): string {
  const { recipe } = header ?? {};
  return recipe ? `${recipe.method} ${recipe.rate} ${recipe.values}` : `dense ${values}`;
}
