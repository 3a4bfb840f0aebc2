/** A shared memory that hands out 64-byte aligned pieces and never takes them back: for tests and benchmarks. */

import { createMemory } from "./load.ts";

export class Arena {
  readonly memory: WebAssembly.Memory;
  private next = 64;

  constructor(bytes: number) {
    this.memory = createMemory(bytes);
  }

  /** Address of `bytes` new bytes, zero. */
  allocate(bytes: number): number {
    const at = this.next;
    this.next = Math.ceil((at + bytes) / 64) * 64;
    if (this.next > this.memory.buffer.byteLength) {
      throw new RangeError(`Cannot allocate ${bytes} bytes: arena is full`);
    }
    return at;
  }

  /** Frees everything and zeroes what was used. */
  reset(): void {
    new Uint8Array(this.memory.buffer, 0, this.next).fill(0);
    this.next = 64;
  }

  /** Address of a copy of `data`. */
  store(data: Float32Array | Uint8Array | Int32Array): number {
    const at = this.allocate(data.byteLength);
    this.bytes(at, data.byteLength).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return at;
  }

  bytes(at: number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, at, length);
  }

  floats(at: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, at, length);
  }

  ints(at: number, length: number): Int32Array {
    return new Int32Array(this.memory.buffer, at, length);
  }
}
