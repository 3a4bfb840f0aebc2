/**
 * GET /: the console, a page that uses the API as any other client does. Its files are read, hashed and compressed at
 * their first request: a server's start knows nothing of them.
 */
import { createHash } from "node:crypto";
import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import { etag, RETAINED_304_HEADERS } from "hono/etag";

interface Asset {
  /** Beside this module. */
  readonly file: string;
  readonly type: string;
}
/** By path. Open to everybody (scopes.ts): they describe the program, not what is on this server. */
const ASSETS: Readonly<Record<string, Asset>> = {
  "/": { file: "page/index.html", type: "text/html; charset=utf-8" },
  "/console/icon.svg": { file: "page/icon.svg", type: "image/svg+xml" },
  "/console/console.css": { file: "gen/console.css", type: "text/css; charset=utf-8" },
  "/console/console.js": { file: "gen/console.js", type: "text/javascript; charset=utf-8" },
};

/**
 * Scripts and styles come from files of this server alone, and nothing on the page can turn text into either
 * (`trusted-types 'none'`). Blobs are pictures that a user drops, and downloads.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' blob:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

interface Loaded {
  readonly plain: Uint8Array<ArrayBuffer>;
  readonly zipped: Uint8Array<ArrayBuffer>;
  readonly hash: string;
}

async function load({ file }: Asset): Promise<Loaded> {
  const plain = await Deno.readFile(new URL(file, import.meta.url));
  const stream = new Blob([plain]).stream().pipeThrough(new CompressionStream("gzip"));
  const zipped = new Uint8Array(await new Response(stream).arrayBuffer());
  return { plain, zipped, hash: createHash("sha256").update(plain).digest("base64url") };
}

/** A browser takes the headers of a 304 over: without its policy the page would get that of other answers. */
const etags = etag({ retainedHeaders: [...RETAINED_304_HEADERS, "content-security-policy"] });

/** `gzip`, and not with `q=0`. */
const takesGzip = (c: Context): boolean =>
  /(^|,)\s*gzip\s*(;\s*q=(1|0\.\d*[1-9])[^,]*)?(,|$)/.test(c.req.header("accept-encoding") ?? "");

export function consolePage(): OpenAPIHono {
  const app = new OpenAPIHono();
  for (const [path, asset] of Object.entries(ASSETS)) {
    let loaded: Promise<Loaded> | undefined;
    app.get(path, etags, async (c) => {
      const { plain, zipped, hash } = await (loaded ??= load(asset));
      const gzip = takesGzip(c);
      return c.body(gzip ? zipped : plain, 200, {
        "content-type": asset.type,
        "content-security-policy": POLICY,
        // Asked for anew each time, answered by 304: a new version of the server has a new page at once.
        "cache-control": "no-cache",
        vary: "accept-encoding",
        etag: `"${hash}${gzip ? "-gzip" : ""}"`,
        ...gzip ? { "content-encoding": "gzip" } : {},
      });
    });
  }
  return app;
}
