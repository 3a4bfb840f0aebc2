/** A disk of its own for a data folder: one that can be full, or read-only. Needs the right to mount. */
import { join } from "node:path";

export class SmallDisk implements AsyncDisposable {
  private constructor(readonly path: string) {}

  /** A file system in memory; null where this process may not mount one. */
  static async mount(sizeBytes: number): Promise<SmallDisk | null> {
    const path = await Deno.makeTempDir();
    const options = `size=${sizeBytes}`;
    if (await run("mount", "-t", "tmpfs", "-o", options, "none", path)) return new SmallDisk(path);
    await Deno.remove(path);
    return null;
  }

  /** Takes all space that is left. */
  async fill(): Promise<void> {
    using file = await Deno.open(join(this.path, "filler"), { create: true, write: true });
    for (let size = 2 ** 20; size >= 512;) {
      try {
        await file.write(new Uint8Array(size));
      } catch {
        size /= 2;
      }
    }
  }
  async free(): Promise<void> {
    await Deno.remove(join(this.path, "filler"));
  }

  /** Nothing in it can be opened for writing, made, renamed or deleted; what is open stays so. */
  async lock(): Promise<void> {
    await run("mount", "--bind", this.path, this.path);
    await run("mount", "-o", "remount,ro,bind", this.path);
  }
  async unlock(): Promise<void> {
    await run("umount", this.path);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    while (await run("umount", this.path));
    await Deno.remove(this.path);
  }
}

async function run(command: string, ...args: string[]): Promise<boolean> {
  try {
    return (await new Deno.Command(command, { args, stdout: "null", stderr: "null" }).output()).success;
  } catch {
    return false; // no such command
  }
}
