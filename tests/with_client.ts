/** One test of a fake server through the official client. */
import OpenAI from "openai";
import { FakeServer, type FakeServerOptions } from "./fake_server.ts";

export function withClient(
  name: string,
  options: FakeServerOptions,
  run: (server: FakeServer, client: OpenAI) => Promise<void>,
): void {
  Deno.test(name, async () => {
    await using server = await FakeServer.start(options);
    await run(server, new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 }));
  });
}
