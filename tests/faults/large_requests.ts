/**
 * Requests as large as the server takes them, several at once: what cannot fit is refused, what can is answered, and probes
 * are answered meanwhile.
 */
import { ServerProcess } from "../server_process.ts";
import { dataFolderWithModel } from "../testing/data_folder.ts";
import { HEALTH_MS, latencies, probeHealth } from "./_health.ts";
import type { Campaign } from "./report.ts";

const model = "stories-5m";
const MIB = 2 ** 20;
const text = (bytes: number) => "Once upon a time. ".repeat(bytes / 18);
const list = (count: number, value: string) => `[${Array(count).fill(value).join(",")}]`;

interface Case {
  readonly path: string;
  /** JSON; made when it is sent, since all of them take 200 MB. */
  readonly body: () => string;
  readonly status: 200 | 400 | 413;
}
const completion = (prompt: () => string, status: Case["status"] = 400): Case => ({
  path: "/v1/completions",
  body: () => `{"model":"${model}","max_tokens":1,"prompt":${prompt()}}`,
  status,
});
const CASES: readonly Case[] = [
  completion(() => JSON.stringify(text(15 * MIB))),
  completion(() => JSON.stringify("a".repeat(15 * MIB))),
  completion(() => JSON.stringify(text(20_000))),
  completion(() => JSON.stringify(Array(100).fill(text(15_000)))),
  completion(() => list(7_000_000, "1")),
  completion(() => list(200_000, "1")),
  completion(() => list(200_000, "-1")),
  completion(() => list(200_000, "null")),
  completion(() => list(200_000, '"a"')),
  completion(() => JSON.stringify("a".repeat(17 * MIB)), 413),
  {
    path: "/tokenize",
    body: () => JSON.stringify({ model, prompt: text(MIB) }),
    status: 200,
  },
  {
    path: "/detokenize",
    body: () => `{"model":"${model}","tokens":${list(200_000, "300")}}`,
    status: 200,
  },
  {
    path: "/v1/responses",
    body: () => JSON.stringify({ model, input: text(15 * MIB) }),
    status: 400,
  },
  {
    path: "/v1/chat/completions",
    body: () => `{"model":"${model}","messages":${list(200_000, "{}")}}`,
    status: 400,
  },
];

export const campaign: Campaign = async ({ full }) => {
  const data = await dataFolderWithModel();
  try {
    await using server = await ServerProcess.start(data);
    const probe = probeHealth(server.url);
    const failures: string[] = [];
    const rounds = full ? 5 : 1;
    for (let round = 0; round < rounds; round++) {
      const problems = await Promise.all(CASES.map((c) => send(server, c)));
      failures.push(...problems.flatMap((p) => p === null ? [] : [p]));
    }
    const tried = CASES.length * rounds, health = await probe.stop();
    if (health.at(-1)! > HEALTH_MS) failures.push(`/healthz took ${health.at(-1)} ms`);
    return { bad_inputs: { tried, refused: tried - failures.length }, failures, notes: [latencies(health)] };
  } finally {
    await Deno.remove(data, { recursive: true });
  }
};

/** @returns what is wrong with the answer */
async function send(server: ServerProcess, { path, body, status }: Case): Promise<string | null> {
  const response = await server.get(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: body(),
  });
  const answer = await response.text();
  return response.status === status ? null : `${path} answers ${response.status}: ${answer.slice(0, 300)}`;
}
