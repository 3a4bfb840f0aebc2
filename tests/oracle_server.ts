/** A fake server whose model is that oracle's, read by the real engine. */
import { openModel } from "../engine/open_model.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { byteTokenizer } from "./fake_engine.ts";
import { FakeServer } from "./fake_server.ts";

/** One test; a text model's tokenizer is the one of bytes, since oracles have none. */
export function withOracle(name: string, family: string, run: (server: FakeServer) => Promise<void>): void {
  oracleTest(name, `oracles/${family}`, async () => {
    const open = async () => {
      const model = await openModel(shared(`oracles/${family}`).pathname, { threads: 1 });
      return model.encoder?.reads === "text" ? { ...model, tokenizer: byteTokenizer } : model;
    };
    await using server = await FakeServer.start({ open });
    await run(server);
  });
}
