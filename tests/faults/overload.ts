/**
 * Four times the requests that a server can answer: each is answered or told to come again (429), probes are answered all
 * the while, memory stays what it is, and afterwards the server answers as before.
 */
import { ServerProcess } from "../server_process.ts";
import { dataFolderWithModel } from "../testing/data_folder.ts";
import { HEALTH_MS, latencies, probeHealth } from "./_health.ts";
import { complete, count, type Outcome } from "./_outcome.ts";
import { type Campaign, mergeReports } from "./report.ts";

const BODY = {
  model: "stories-5m",
  prompt: "Once upon a time",
  max_tokens: 64,
  temperature: 0,
  ignore_eos: true,
};
const OVERLOAD = 4;
/** Clients that keep the server busy while its capacity is measured. */
const CLIENTS = 8;
/** Few places, so that the queue is full most of the time. */
const ARGS = ["--max-sequences", "8", "--max-waiting", "16"];
/** Memory may differ by so much: V8 lets its heap swing (243 to 306 MB over 15,000 requests in 150 s, without a trend). */
const GROWTH_BYTES = 128e6;

export const campaign: Campaign = async ({ full }) => {
  const data = await dataFolderWithModel();
  try {
    await using server = await ServerProcess.start(data, { args: ARGS });
    const perSecond = await capacity(server.url, full ? 5_000 : 1_500);
    const probe = probeHealth(server.url);
    const memory = new MemoryWatch(server);
    const outcomes = await flood(server.url, {
      perSecond: OVERLOAD * perSecond,
      ms: full ? 60_000 : 8_000,
    });
    const health = await probe.stop(), growth = await memory.stop();
    const after = await complete(server.url, BODY);
    const { answered, refused, odd } = sorted(outcomes);
    const failures = [
      ...odd,
      ...after.kind === "answered" ? [] : [`Afterwards: ${JSON.stringify(after)}`],
      ...answered > 0 && refused > 0 ? [] : [`${answered} requests were answered, ${refused} refused`],
      ...health.at(-1)! <= HEALTH_MS ? [] : [`/healthz took ${health.at(-1)} ms`],
      ...growth.bytes <= GROWTH_BYTES ? [] : [`Memory grew: ${growth.text}`],
      ...server.log.includes("unexpected error") ? ["The log has an unexpected error"] : [],
    ];
    const notes = [
      `capacity ${perSecond.toFixed(1)} requests/s, then ${OVERLOAD} times as many: ${answered} answered, ` +
      `${refused} times 429`,
      latencies(health),
      `memory ${growth.text}`,
    ];
    return mergeReports([count([...outcomes, after]), { failures, notes }]);
  } finally {
    await Deno.remove(data, { recursive: true });
  }
};

/** Answers a second while some clients wait for theirs, after a warm-up. */
async function capacity(url: string, ms: number): Promise<number> {
  await complete(url, BODY);
  const start = performance.now();
  const counts = await Promise.all(Array.from({ length: CLIENTS }, async () => {
    let answered = 0;
    while (performance.now() - start < ms) if ((await complete(url, BODY)).kind === "answered") answered++;
    return answered;
  }));
  return counts.reduce((a, b) => a + b) * 1000 / (performance.now() - start);
}

/** Sends at a fixed rate, whatever comes back (an open loop). @returns what became of each, once all have ended */
async function flood(url: string, { perSecond, ms }: { perSecond: number; ms: number }): Promise<Outcome[]> {
  const sent: Promise<Outcome>[] = [], start = performance.now();
  for (let elapsed = 0; elapsed < ms; elapsed = performance.now() - start) {
    while (sent.length < elapsed * perSecond / 1000) {
      sent.push(complete(url, { ...BODY, stream: sent.length % 2 === 0 }));
    }
    await new Promise((done) => setTimeout(done, 5));
  }
  return await Promise.all(sent);
}

function sorted(outcomes: readonly Outcome[]): { answered: number; refused: number; odd: string[] } {
  const answered = outcomes.filter(({ kind }) => kind === "answered").length;
  const statuses = outcomes.flatMap((o) => o.kind === "refused" ? [o.status] : []);
  const odd = statuses.filter((status) => status !== 429).map((status) => `A refusal by ${status}`);
  return { answered, refused: statuses.length - odd.length, odd: [...new Set(odd)] };
}

/** The server's resident memory, once a second: what it is after the first quarter of the time and at the end. */
class MemoryWatch {
  readonly #bytes: number[] = [];
  readonly #timer = setInterval(() => this.#look(), 1_000);
  #looking: Promise<void> = Promise.resolve();

  constructor(readonly server: ServerProcess) {}

  #look(): void {
    this.#looking = this.#read();
  }
  async #read(): Promise<void> {
    const text = await (await this.server.get("/metrics")).text();
    this.#bytes.push(Number(/^process_memory_usage\S* (\d+)/m.exec(text)![1]));
  }
  async stop(): Promise<{ bytes: number; text: string }> {
    clearInterval(this.#timer);
    await this.#looking;
    await this.#read();
    const early = this.#bytes[Math.floor(this.#bytes.length / 4)], end = this.#bytes.at(-1)!;
    const mb = (bytes: number) => (bytes / 1e6).toFixed(0);
    return {
      bytes: end - early,
      text: `${mb(early)} MB after a quarter of the time, ${mb(end)} MB at the end`,
    };
  }
}
