import assert from "node:assert/strict";
import { MaskMailbox, maskWords } from "./mask_mailbox.ts";

const VOCAB = 70;
const mask = (first: number) => Int32Array.of(first, 0, 0);

/** Both sides; what the leader would block on has been answered before it asks. */
function sides() {
  const owner = MaskMailbox.create(VOCAB);
  return { owner, leader: new MaskMailbox(owner.buffer), grammar: new MaskMailbox(owner.buffer) };
}

/** A thread that only waits for shared memory counts as done; a grammar's thread also listens to messages. */
async function listening(run: () => Promise<void>): Promise<void> {
  const timer = setInterval(() => {}, 1000);
  await run().finally(() => clearInterval(timer));
}

const it = (name: string, run: () => Promise<void>) => Deno.test(name, () => listening(run));

it("MaskMailbox hands masks and tokens over in turns", async () => {
  const { leader, grammar } = sides();
  for (let turn = 1; turn <= 3; turn++) {
    grammar.answer(mask(turn));
    assert.deepEqual(leader.next(), mask(turn));
    const token = grammar.token();
    leader.accept(10 * turn);
    assert.equal(await token, 10 * turn);
  }
  grammar.answer("ended");
  assert.equal(leader.next(), "ended");
  assert.equal(maskWords(VOCAB), 3);
});

it("MaskMailbox says that a mask is late, and has it when it comes", () => {
  const { leader, grammar } = sides();
  assert.equal(leader.next(0), "late");
  assert.equal(leader.next(1), "late");
  grammar.answer(mask(1));
  assert.deepEqual([leader.next(0), leader.next(0)], [mask(1), mask(1)]);
  leader.accept(5);
  assert.equal(leader.next(0), "late");
  return Promise.resolve();
});

it("MaskMailbox that its owner closed holds nobody, and stays closed", async () => {
  const { owner, leader, grammar } = sides();
  grammar.answer(mask(1));
  assert.deepEqual(leader.next(), mask(1));
  const token = grammar.token();
  owner.close();
  assert.equal(await token, null);
  leader.accept(5); // what the leader chose before it heard
  grammar.answer(mask(2)); // what the grammar was at
  assert.equal(leader.next(), "failed");
  assert.equal(await grammar.token(), null);
});
