/** The stub in a process of its own: told its pace, it tells its port, and ends with the one that started it. */
import { startStub } from "./stub_server.ts";

const stub = startStub(JSON.parse(Deno.args[0]));
console.log(stub.addr.port);
for await (const _ of Deno.stdin.readable); // open as long as that process lives
await stub.shutdown();
