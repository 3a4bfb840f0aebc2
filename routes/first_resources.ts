/** What probes, and whoever waits for a server's first token, ask for: loaded at the start. */
import type { Resource } from "./app.ts";
import { chatCompletions } from "./chat_completions.ts";
import { completions } from "./completions.ts";
import { operations } from "./operations.ts";

export const FIRST_RESOURCES: readonly Resource[] = [operations, completions, chatCompletions];
