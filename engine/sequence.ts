/** One request as the scheduler sees it: its tokens, how far they are computed, and the KV blocks it holds. */
import type { AdapterUse } from "./adapters.ts";
import { rootOf } from "./prefix_cache.ts";
import type { PromptLookup } from "./prompt_lookup.ts";

/** Which positions of a prompt need logits. */
export type Outputs = "last" | "all";

/**
 * Whoever owns a sequence takes the logits of each output row whose token is still the sequence's (a wrong draft's is
 * not), sets `needed` behind it, and pushes each chosen token to `tokens`; that token's row comes with the next step.
 */
export class Sequence {
  readonly tokens: number[];
  readonly promptLength: number;
  /** The first position whose logits nobody has seen yet: it and all after it must be computed, cached or not. */
  needed: number;
  /** Positions whose keys and values are in the cache, drafts of the last step included. */
  computed = 0;
  /** Positions that were computed for this sequence or found in the cache, before any preemption. */
  reached = 0;
  /** Positions that were found in the cache and never computed for this sequence. */
  cached = 0;
  /** Tokens that the last step computed behind the known ones, on trial. */
  drafted = 0;
  readonly blocks: number[] = [];
  /** How many of the blocks the prefix cache knows, and the number of the prefix they hold. */
  known = 0;
  prefix: number;
  /** Has outgrown the length up to which the model turns short sequences (longrope). */
  long = false;
  /** Row of the block tables; -1 while waiting. */
  slot = -1;
  /** Prompt rows the scheduler had given to anybody when this sequence was first admitted. */
  since = -1;

  /**
   * @param lookup proposes drafts; null = none
   * @param adapter LoRA adapter that its rows go through; null = none
   */
  constructor(
    readonly id: number,
    promptIds: readonly number[],
    outputs: Outputs,
    readonly lookup: PromptLookup | null = null,
    readonly adapter: AdapterUse | null = null,
  ) {
    this.tokens = [...promptIds];
    this.promptLength = promptIds.length;
    this.needed = outputs === "all" ? 0 : promptIds.length - 1;
    this.prefix = this.root;
  }
  /** The prefix of none of its blocks. */
  get root(): number {
    return rootOf(this.adapter?.serial ?? 0, this.long);
  }
  get pending(): number {
    return this.tokens.length - this.computed;
  }
}
