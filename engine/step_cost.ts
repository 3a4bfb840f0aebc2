/**
 * How long steps take on this machine, learned from those that ran, and so how many prompt rows a step may hold: what
 * decodes beside a long prompt must not wait long for its next token. Pure: times come from the caller.
 */

/** What a step computed. */
export interface StepShape {
  readonly decodeRows: number;
  /** Rows of prompts, and the sum of the tokens they attend to. */
  readonly promptRows: number;
  readonly promptContext: number;
}

/** What the prompt rows of a step may cost; how the scheduler asks. */
export interface PromptBudget {
  /** Prompt rows of a step get this long when something decodes in it, and this long when nothing does. */
  readonly mixedMs: number;
  readonly aloneMs: number;
  /** Expected time of the prompt row at a position. */
  rowMs(position: number): number;
}

/** For encoders: an input must not be cut, since every token sees all others. */
export const WHOLE_PROMPTS: PromptBudget = { mixedMs: Infinity, aloneMs: Infinity, rowMs: () => 0 };

/** Target for a step in which something decodes: 20 tokens/s are faster than one reads. */
const MIXED_STEP_MS = 50;
/** Where decoding alone takes most of that, prompts may still double a step's time. */
const MIXED_SLOWDOWN = 2;
/** Nobody waits for the step's end but whoever comes or leaves meanwhile; short chunks would read the weights too often. */
const ALONE_MS = 1000;
/** Taken until the first prompt has been measured: 64 rows beside decodes. */
const UNKNOWN_ROW_MS = MIXED_STEP_MS / 64;
/** Weight of what is known against the newest step's. */
const MEMORY = 0.8;

export class StepCost implements PromptBudget {
  /** Running time of steps that only decode. */
  #decodeMs = 0;
  // Sums of products over past steps for the least squares fit ms = a rows + b context.
  #rr = 0;
  #rc = 0;
  #cc = 0;
  #rt = 0;
  #ct = 0;
  #perRow = UNKNOWN_ROW_MS;
  #perContext = 0;

  get mixedMs(): number {
    return Math.max(MIXED_STEP_MS - this.#decodeMs, (MIXED_SLOWDOWN - 1) * this.#decodeMs);
  }
  get aloneMs(): number {
    return ALONE_MS;
  }
  /** Linear layers cost the same for every row, attention by the tokens that it sees. */
  rowMs(position: number): number {
    return this.#perRow + this.#perContext * (position + 1);
  }

  /** Learns from a step that took `ms`. */
  observe({ decodeRows, promptRows: r, promptContext: c }: StepShape, ms: number): void {
    if (r === 0) {
      this.#decodeMs = this.#decodeMs === 0 ? ms : MEMORY * this.#decodeMs + (1 - MEMORY) * ms;
      return;
    }
    const t = Math.max(0, decodeRows > 0 ? ms - this.#decodeMs : ms);
    this.#rr = MEMORY * this.#rr + r * r;
    this.#rc = MEMORY * this.#rc + r * c;
    this.#cc = MEMORY * this.#cc + c * c;
    this.#rt = MEMORY * this.#rt + r * t;
    this.#ct = MEMORY * this.#ct + c * t;
    this.#fit();
  }

  #fit(): void {
    const determinant = this.#rr * this.#cc - this.#rc * this.#rc;
    let perRow = (this.#rt * this.#cc - this.#ct * this.#rc) / determinant;
    let perContext = (this.#ct * this.#rr - this.#rt * this.#rc) / determinant;
    // Steps that are all alike leave the two undecided: a negative or undefined share falls to the other.
    if (!(perContext >= 0) || determinant < 1e-6 * this.#rr * this.#cc) {
      [perRow, perContext] = [this.#rt / this.#rr, 0];
    } else if (perRow < 0) {
      [perRow, perContext] = [0, this.#ct / this.#cc];
    }
    this.#perRow = perRow;
    this.#perContext = perContext;
  }
}
