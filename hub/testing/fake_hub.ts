/** A hub for tests: one model, served as Hugging Face does, with the faults a test asks for. */
import { createHash } from "node:crypto";

export interface FakeHubOptions {
  readonly repo: string;
  readonly files: Readonly<Record<string, Uint8Array>>;
  /** Who has it sees the model; without, everybody does. */
  readonly token?: string;
  /** Entries of a page of the listing; more have a link to the next. */
  readonly pageSize?: number;
  /** Connections that break after so many bytes, by file, in their order; afterwards none does. */
  readonly breaksAfter?: Readonly<Record<string, readonly number[]>>;
  /** Content sent in place of a file's own, of the same length. */
  readonly damaged?: Readonly<Record<string, Uint8Array>>;
  /** What the listing says in place of the truth. */
  readonly listing?: (entries: Entry[]) => unknown;
  /** Ranges are answered with the whole file. */
  readonly ignoresRanges?: boolean;
}
interface Entry {
  readonly type: string;
  readonly path: string;
  readonly size: number;
  readonly oid: string;
  readonly lfs?: { readonly oid: string; readonly size: number; readonly pointerSize: number };
}
export interface FakeRequest {
  /** "hub" or "cdn", which has an origin of its own. */
  readonly host: "hub" | "cdn";
  readonly path: string;
  readonly range: string | null;
  readonly token: string | null;
}

export const COMMIT = "0123456789abcdef0123456789abcdef01234567";
/** Larger files lie in large-file storage: they have a SHA-256, and their content comes from elsewhere. */
export const LARGE_BYTES = 1000;

const hex = (kind: "sha1" | "sha256", ...parts: (string | Uint8Array)[]) =>
  parts.reduce((hash, part) => hash.update(part), createHash(kind)).digest("hex");
const gitHash = (content: Uint8Array) => hex("sha1", `blob ${content.length}\0`, content);

export class FakeHub implements AsyncDisposable {
  readonly requests: FakeRequest[] = [];
  readonly url: string;
  readonly #options: FakeHubOptions;
  readonly #hub: Deno.HttpServer<Deno.NetAddr>;
  readonly #cdn: Deno.HttpServer<Deno.NetAddr>;
  readonly #breaks: Map<string, number[]>;

  constructor(options: FakeHubOptions) {
    this.#options = options;
    this.#breaks = new Map(
      Object.entries(options.breaksAfter ?? {}).map(([name, list]) => [name, [...list]]),
    );
    const listen = (host: FakeRequest["host"]) =>
      Deno.serve(
        { hostname: "127.0.0.1", port: 0, onListen: () => {}, onError: () => new Response(null) },
        (request) => this.#answer(request, host),
      );
    [this.#hub, this.#cdn] = [listen("hub"), listen("cdn")];
    this.url = `http://127.0.0.1:${this.#hub.addr.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#hub.shutdown(), this.#cdn.shutdown()]);
  }

  /** Ranges that were asked for of a file's content. */
  ranges(name: string): (string | null)[] {
    return this.requests.filter(({ path, range }) => path.endsWith(`/${name}`) && range !== "bytes=0-0")
      .map(({ range }) => range);
  }

  #answer(request: Request, host: FakeRequest["host"]): Response {
    const { pathname: path, searchParams } = new URL(request.url), { repo, token } = this.#options;
    const given = request.headers.get("authorization"), range = request.headers.get("range");
    this.requests.push({ host, path, range, token: given });
    if (host === "cdn") return this.#content(path.slice(1), range);
    if (token && given !== `Bearer ${token}`) {
      return Response.json({ error: "Unauthorized" }, { status: 401 });
    }
    const known = [`/api/models/${repo}/revision/main`, `/api/models/${repo}/revision/v1`];
    if (known.includes(path)) return Response.json({ _id: "1", id: repo, sha: COMMIT, lastModified: 0 });
    const tree = `/api/models/${repo}/tree/${COMMIT}`;
    if (path === tree) return this.#page(Number(searchParams.get("cursor")));
    if (path.startsWith(`${tree}/`)) return Response.json(this.#entries(`${path.slice(tree.length + 1)}/`));
    const files = `/${repo}/resolve/${COMMIT}/`;
    const name = path.startsWith(files) ? path.slice(files.length) : "";
    const content = this.#options.files[name];
    return content
      ? this.#resolve(name, content, request)
      : Response.json({ error: "Not found" }, { status: 404 });
  }

  /** Files and folders of the folder whose path (with a slash behind it) this is. */
  #entries(folder: string): Entry[] {
    const inside = Object.entries(this.#options.files).filter(([path]) => path.startsWith(folder));
    const entries = inside.map(([path, content]): Entry => {
      const end = path.indexOf("/", folder.length);
      if (end >= 0) return { type: "directory", path: path.slice(0, end), size: 0, oid: hex("sha1", path) };
      const large = content.length > LARGE_BYTES;
      return {
        ...{ type: "file", path, size: content.length, oid: gitHash(content) },
        ...large ? { lfs: { oid: hex("sha256", content), size: content.length, pointerSize: 130 } } : {},
      };
    });
    return entries.filter(({ path }, i) => entries.findIndex((e) => e.path === path) === i);
  }

  #page(from: number): Response {
    const entries = this.#entries("");
    const { listing, pageSize = entries.length, repo } = this.#options;
    const next = `<${this.url}/api/models/${repo}/tree/${COMMIT}?cursor=${from + pageSize}>; rel="next"`;
    const page = entries.slice(from, from + pageSize);
    return Response.json(listing ? listing(page) : page, {
      headers: from + pageSize < entries.length ? { link: next } : {},
    });
  }

  #resolve(name: string, content: Uint8Array, request: Request): Response {
    const large = content.length > LARGE_BYTES;
    const etag = `"${large ? hex("sha256", content) : gitHash(content)}"`;
    if (request.headers.get("accept")?.includes("xet-fileinfo")) {
      const headers = {
        "content-range": `bytes 0-0/${content.length}`,
        [large ? "x-linked-etag" : "etag"]: etag,
      };
      return new Response(content.slice(0, 1), { status: 206, headers });
    }
    if (!large) return this.#content(name, request.headers.get("range"));
    return new Response(null, {
      status: 302,
      headers: { location: `http://127.0.0.1:${this.#cdn.addr.port}/${name}` },
    });
  }

  #content(name: string, range: string | null): Response {
    const content = this.#options.damaged?.[name] ?? this.#options.files[name];
    const from = this.#options.ignoresRanges ? 0 : Number(/^bytes=(\d+)-/.exec(range ?? "")?.[1] ?? 0);
    const breaks = this.#breaks.get(name)?.shift();
    const headers = { "content-range": `bytes ${from}-${content.length - 1}/${content.length}` };
    const body = breaks === undefined
      ? content.slice(from)
      : ReadableStream.from(brokenOff(content.slice(from, from + breaks)));
    return new Response(body as BodyInit, { status: this.#options.ignoresRanges ? 200 : 206, headers });
  }
}

async function* brokenOff(content: Uint8Array): AsyncGenerator<Uint8Array> {
  if (content.length > 0) yield content;
  await new Promise((done) => setTimeout(done, 5)); // what was sent arrives first
  throw new Error("the connection breaks");
}
