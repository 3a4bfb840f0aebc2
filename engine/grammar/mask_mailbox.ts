/**
 * Where the engine's leader and a grammar's thread meet for one generation, in shared memory: the grammar says which tokens
 * may come, the leader which one came. The next mask is made while the next step runs; an exchange alone takes 15
 * microseconds.
 */

const PLACE = { turn: 0, answered: 1, verdict: 2, token: 3 } as const;
const HEADER = Object.keys(PLACE).length;
const VERDICT = { mask: 0, ended: 1, failed: 2 } as const;
/** Turn and answers of a mailbox that its owner closed. */
const CLOSED = 2 ** 30;
/**
 * A mask takes 1 ms, in nested repetitions of patterns up to 1 s and more, and it grows with every token. Whoever waits so
 * long waits for nothing.
 */
const MASK_DEADLINE_MS = 2000;

/** Words of a mask: a bit a token. */
export const maskWords = (vocab: number): number => Math.ceil(vocab / 32);

/** One turn a token: the grammar answers, the leader accepts. */
export class MaskMailbox {
  readonly #ints: Int32Array;
  readonly #mask: Int32Array;
  #turn = 0;
  /** When the leader first asked for this turn's mask. */
  #asked: number | null = null;

  /** @param buffer of the other side's instance */
  constructor(readonly buffer: SharedArrayBuffer) {
    this.#ints = new Int32Array(buffer, 0, HEADER);
    this.#mask = new Int32Array(buffer, HEADER * 4);
  }
  static create(vocab: number): MaskMailbox {
    return new MaskMailbox(new SharedArrayBuffer((HEADER + maskWords(vocab)) * 4));
  }

  /**
   * Leader: which tokens may come now, `[maskWords]`, valid until `accept()`; blocks for at most `waitMs`. "late": the
   * grammar has not answered by then; "ended": the text is complete; "failed": the grammar's thread is gone, the generation
   * is, or the mask takes 2 s.
   */
  next(waitMs = Infinity): Int32Array | "late" | "ended" | "failed" {
    const now = performance.now();
    this.#asked ??= now;
    const deadline = this.#asked + MASK_DEADLINE_MS;
    if (!this.#answeredBy(Math.min(deadline, now + waitMs))) {
      return performance.now() < deadline ? "late" : "failed";
    }
    const verdict = Atomics.load(this.#ints, PLACE.verdict);
    if (verdict === VERDICT.mask) return this.#mask;
    return verdict === VERDICT.ended ? "ended" : "failed";
  }
  #answeredBy(deadline: number): boolean {
    for (;;) {
      const answered = Atomics.load(this.#ints, PLACE.answered);
      if (answered > this.#turn) return true;
      const left = deadline - performance.now();
      if (left <= 0) return false;
      Atomics.wait(this.#ints, PLACE.answered, answered, left);
    }
  }
  /** Leader: the token that was chosen. */
  accept(token: number): void {
    this.#asked = null;
    Atomics.store(this.#ints, PLACE.token, token);
    // Not over the owner's closing.
    Atomics.compareExchange(this.#ints, PLACE.turn, this.#turn, this.#turn + 1);
    Atomics.notify(this.#ints, PLACE.turn);
    this.#turn++;
  }

  /** Grammar: what may come. */
  answer(mask: Int32Array | "ended"): void {
    if (mask !== "ended") this.#mask.set(mask);
    else Atomics.compareExchange(this.#ints, PLACE.verdict, VERDICT.mask, VERDICT.ended);
    Atomics.compareExchange(this.#ints, PLACE.answered, this.#turn, this.#turn + 1);
    Atomics.notify(this.#ints, PLACE.answered);
  }
  /** Grammar: the token that came; null when the generation is over. */
  async token(): Promise<number | null> {
    for (;;) {
      const turn = Atomics.load(this.#ints, PLACE.turn);
      if (turn === CLOSED) return null;
      if (turn > this.#turn) {
        this.#turn = turn;
        return Atomics.load(this.#ints, PLACE.token);
      }
      const waiting = Atomics.waitAsync(this.#ints, PLACE.turn, turn);
      if (waiting.async) await waiting.value;
    }
  }

  /** Owner: nobody waits any more, on either side. */
  close(): void {
    Atomics.store(this.#ints, PLACE.verdict, VERDICT.failed);
    for (const place of [PLACE.answered, PLACE.turn]) {
      Atomics.store(this.#ints, place, CLOSED);
      Atomics.notify(this.#ints, place);
    }
  }
}
