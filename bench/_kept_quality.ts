/** Perplexity and accuracy that an earlier report measured: of the same weights on the same text and tasks, kept as lines of JSON. */
import { join } from "node:path";
import { z } from "zod";

const FILE = "quality.jsonl";

const taskSchema = z.object({ accuracy: z.number(), standard_error: z.number(), count: z.number() });
const qualitySchema = z.object({
  tokens: z.number(),
  perplexity: z.number(),
  tasks: z.record(z.string(), taskSchema),
});
const lineSchema = z.object({ key: z.string(), quality: qualitySchema });
export type Quality = z.infer<typeof qualitySchema>;

export class KeptQuality {
  private constructor(readonly path: string, readonly known: Map<string, Quality>) {}

  /** @param folder need not exist */
  static async open(folder: string): Promise<KeptQuality> {
    await Deno.mkdir(folder, { recursive: true });
    const path = join(folder, FILE), text = await Deno.readTextFile(path).catch(() => "");
    return new KeptQuality(path, new Map(text.split("\n").flatMap(readLine)));
  }

  /** @param key of all that the figures depend on */
  async get(key: string, measure: () => Promise<Quality>): Promise<Quality> {
    const known = this.known.get(key);
    if (known) return known;
    const quality = await measure();
    this.known.set(key, quality);
    await Deno.writeTextFile(this.path, `${JSON.stringify({ key, quality })}\n`, { append: true });
    return quality;
  }
}

/** A last line that was cut off is none. */
function readLine(line: string): [string, Quality][] {
  try {
    const { key, quality } = lineSchema.parse(JSON.parse(line));
    return [[key, quality]];
  } catch {
    return [];
  }
}
