/** The protocol of a peer process: one command per line ("prefill 512"), one JSON answer per line. */
import { createInterface } from "node:readline";

const answer = (value) => process.stdout.write(JSON.stringify(value) + "\n");

/**
 * Answers "ready" or why not, then commands until stdin ends.
 * @param start gives the commands: functions from the line's numbers to tokens per second; and close(), if need be.
 *   It imports what the peer needs, so that a missing package is an answer
 */
export async function serveCommands(start) {
  let commands;
  try {
    commands = await start();
    answer({ ready: true });
    for await (const line of createInterface({ input: process.stdin })) {
      const [command, ...numbers] = line.split(" ");
      answer({ tokensPerSecond: await commands[command](...numbers.map(Number)) });
    }
  } catch (error) {
    process.exitCode = 1;
    answer({ error: String(error?.message ?? error) });
  }
  await commands?.close?.();
  process.exit();
}
