/** Waits for what happens soon: as short as it can, as long as a busy machine needs. Tests only. */
const DEADLINE_MS = 30_000;
const STEP_MS = 10;

/** @throws {Error} when the condition does not come to hold */
export async function until(
  condition: () => boolean | Promise<boolean>,
  patienceMs = DEADLINE_MS,
): Promise<void> {
  const deadline = performance.now() + patienceMs;
  while (!await condition()) {
    if (performance.now() > deadline) throw new Error(`Not within ${patienceMs} ms: ${condition}`);
    await new Promise((done) => setTimeout(done, STEP_MS));
  }
}
