/** What `bench engine` can measure beside a model: `runtime:format`, all made from the same weights. */
export const PEERS = [
  "own:int8",
  "own:int4",
  "llama.cpp:q8_0",
  "llama.cpp:q4_0",
  "llama.cpp:q4_1",
  "wllama:q8_0",
  "ort:int8",
  "ort:int4",
] as const;
export type PeerName = typeof PEERS[number];
