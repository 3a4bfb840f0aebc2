/**
 * Sends a real server what it must refuse: bytes that are no HTTP, bodies that are no JSON, fields with values that the
 * OpenAPI document forbids, broken forms, hostile model files. Each is refused by a 4xx in OpenAI's shape (for what is no
 * HTTP by its parser), and afterwards the server answers as before and has kept nothing.
 */
import { join } from "node:path";
import { ERRORS } from "../../errors.ts";
import { Random } from "../../engine/random.ts";
import { type Attack, attacks, peakBytes } from "../../models/testing/attacks.ts";
import { ServerProcess, sharedFolder } from "../server_process.ts";
import { dataFolderWithModel } from "../testing/data_folder.ts";
import { filesOf, refusal } from "../testing/hostile_uploads.ts";
import { until } from "../until.ts";
import { badAddresses, badKeys } from "./_bad_addresses.ts";
import { badBodies } from "./_bad_bodies.ts";
import { badForms } from "./_bad_forms.ts";
import { type Json, sendAll } from "./_bad_input.ts";
import { sendBadBytes } from "./_bad_wire.ts";
import { type Campaign, type FaultReport, mergeReports } from "./report.ts";

const FOLDERS = [
  "archives",
  "chat_template",
  "config",
  "gguf",
  "index",
  "model",
  "onnx",
  "safetensors",
  "tokenizer",
];
/** What the server may take more at its peak than before, with its compression workers. */
const MAX_GROWTH_BYTES = 768 * 2 ** 20;
const KEY = "key-of-the-bad-inputs-campaign";
const AUTHORIZED = { authorization: `Bearer ${KEY}` };
const PROBE = { model: "stories-5m", prompt: "Once upon a time", max_tokens: 12, temperature: 0 };

export const campaign: Campaign = async ({ seed, full }) => {
  const data = await dataFolderWithModel();
  try {
    const requests = await withServer(
      data,
      { OATMILL_API_KEYS: KEY },
      (server) => sendRequests(server, { seed, full }),
    );
    const files = await withServer(data, {}, (server) => sendFiles(server, full));
    return mergeReports([requests, files]);
  } finally {
    await Deno.remove(data, { recursive: true });
  }
};

/** Runs against a server of its own, and adds what the server must still do and have afterwards. */
async function withServer(
  data: string,
  env: Record<string, string>,
  run: (server: ServerProcess) => Promise<Partial<FaultReport>>,
): Promise<Partial<FaultReport>> {
  await using server = await ServerProcess.start(data, { args: ["--no-bundled"], env });
  const before = await state(server, data), peak = peakBytes(server.child.pid);
  const report = await run(server);
  const failures: string[] = [];
  try {
    const left = () => [...Deno.readDirSync(join(data, "tmp"))].map(({ name }) => name);
    // A body that stopped arriving is given up after 30 s.
    await until(() => left().length === 0, 90_000).catch(() => failures.push(`Left in tmp/: ${left()}`));
    const after = await state(server, data);
    if (after !== before) failures.push(`The server was ${before} and is ${after}`);
  } catch (error) {
    failures.push(`The server is not as before: ${error}`);
  }
  const growth = peakBytes(server.child.pid) - peak;
  if (growth > MAX_GROWTH_BYTES) failures.push(`The server's memory grew by ${growth} bytes`);
  return mergeReports([report, { failures }]);
}

/** What it answers, and what it keeps. */
async function state(server: ServerProcess, data: string): Promise<string> {
  const headers = { ...AUTHORIZED, "content-type": "application/json" };
  const get = async (path: string) => await (await server.get(path, { headers })).json();
  const answer = await (await server.post("/v1/completions", PROBE, { headers })).json();
  const ids = async (path: string) => (await get(path)).data.map(({ id }: Json) => id);
  return JSON.stringify({
    ready: (await server.get("/readyz")).status,
    text: answer.choices?.[0].text,
    models: await ids("/v1/models"),
    files: await ids("/v1/files"),
    folders: [...Deno.readDirSync(data)].map(({ name }) => name).sort(),
  });
}

async function sendRequests(
  server: ServerProcess,
  { seed, full }: { readonly seed: number; readonly full: boolean },
): Promise<Partial<FaultReport>> {
  const document = await (await server.get("/openapi.json")).json();
  const mutations = full ? 100 : 5;
  const inputs = [
    ...badBodies(document, { random: new Random(seed), mutations }),
    ...badForms(),
    ...badAddresses(document),
  ];
  return mergeReports([
    await sendAll(server.url, inputs, AUTHORIZED),
    await sendAll(server.url, badKeys(document)),
    await sendBadBytes(Number(new URL(server.url).port)),
  ]);
}

/** So many, spread over the folders, where the campaign is not at full length: each is a job in a worker of its own. */
const FEW_FILES = 3;

async function sendFiles(server: ServerProcess, full: boolean): Promise<Partial<FaultReport>> {
  if (!sharedFolder("oracles/attacks")) {
    console.error("bad_inputs: hostile files are left out: ../shared/oracles/attacks is absent");
    return {};
  }
  const all = (await Promise.all(FOLDERS.map(attacks))).flat().filter(({ expect }) => expect === "refuse");
  const chosen = full ? all : all.filter((_, i) => i % Math.ceil(all.length / FEW_FILES) === 0);
  const failures: string[] = [];
  for (const attack of chosen) {
    const wrong = await sendFile(server, attack).catch((error) => `no answer: ${error}`);
    if (wrong !== null) failures.push(`${attack.file}: ${wrong}`);
  }
  return { bad_inputs: { tried: chosen.length, refused: chosen.length - failures.length }, failures };
}

/** @returns null when it is refused: as it comes, by its job, or (a chat template) where it is used */
async function sendFile(server: ServerProcess, attack: Attack): Promise<string | null> {
  const error = await refusal(server, filesOf(attack));
  if (error !== null) return Math.floor(ERRORS[error.code].status / 100) === 4 ? null : error.code;
  const request = { model: "hostile", messages: [{ role: "user", content: "a" }], max_tokens: 1 };
  const response = await server.post("/v1/chat/completions", request), answer = await response.text();
  await (await server.get("/v1/models/hostile", { method: "DELETE" })).body?.cancel();
  return response.status >= 400 && response.status < 500
    ? null
    : `accepted, then ${response.status} ${answer}`;
}
