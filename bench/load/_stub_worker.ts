/** The stub in a thread of its own: told its pace, it tells its port. */
import { startStub, type StubOptions } from "./stub_server.ts";

self.addEventListener("message", ({ data }: MessageEvent<StubOptions>) => {
  self.postMessage(startStub(data).addr.port);
}, { once: true });
