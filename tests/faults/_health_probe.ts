/**
 * A process of its own that asks a server's /healthz again and again until its stdin ends, and prints how long each answer
 * took (ms, JSON). Argument: the server's address.
 */
const PAUSE_MS = 20;

const times: number[] = [];
let over = false;
new Response(Deno.stdin.readable).arrayBuffer().finally(() => over = true);
while (!over) {
  const start = performance.now();
  const response = await fetch(`${Deno.args[0]}/healthz`);
  await response.arrayBuffer();
  times.push(response.ok ? performance.now() - start : Infinity);
  await new Promise((done) => setTimeout(done, PAUSE_MS));
}
console.log(JSON.stringify(times));
