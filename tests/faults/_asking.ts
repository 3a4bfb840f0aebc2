/** Requests whose answers are known beforehand: what a campaign sent, what came, and what was wrong with it. */
import type { FaultReport } from "./report.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
export type Json = any;

export class Asking {
  #sent = 0;
  #answered = 0;
  readonly #failures: string[] = [];

  /** What the campaign is at, for what it says of failures. */
  scene = "";

  /**
   * Sends a request and reads its answer, a JSON document or a text.
   * @param expected status, and the code of an error
   * @returns null when nothing came or it could not be read; that is a failure already
   */
  async ask(
    url: string,
    init: RequestInit,
    expected: { readonly status: number; readonly code?: string },
  ): Promise<Json> {
    this.#sent++;
    const what = `${init.method ?? "GET"} ${new URL(url).pathname}`;
    try {
      const response = await fetch(url, init);
      const text = await response.text();
      this.#answered++;
      const body: Json = response.headers.get("content-type")?.includes("json") ? JSON.parse(text) : text;
      const { status, code } = expected;
      const right = response.status === status && body?.error?.code === code;
      this.expect(
        right,
        `${what} must be ${status} ${code ?? ""}, is ${response.status} ${text.slice(0, 300)}`,
      );
      return body;
    } catch (error) {
      this.expect(false, `${what} got no answer: ${error}`);
      return null;
    }
  }
  expect(holds: boolean, otherwise: string): void {
    if (!holds) this.#failures.push(`${this.scene}: ${otherwise}`);
  }
  report(): Pick<FaultReport, "requests" | "failures"> {
    const requests = { sent: this.#sent, answered: this.#answered, lost: this.#sent - this.#answered };
    return { requests, failures: this.#failures };
  }
}

/** A server's files, uploads and health, as {@linkcode Asking} asks for them. */
export class Client {
  constructor(readonly url: string, readonly asking: Asking) {}

  get(path: string, expected: { status: number; code?: string } = { status: 200 }): Promise<Json> {
    return this.asking.ask(this.url + path, {}, expected);
  }
  post(
    path: string,
    body: unknown,
    expected: { status: number; code?: string } = { status: 200 },
  ): Promise<Json> {
    const headers = { "content-type": "application/json" };
    const init = { method: "POST", headers, body: JSON.stringify(body) };
    return this.asking.ask(this.url + path, init, expected);
  }
  putFile(
    bytes: Uint8Array<ArrayBuffer>,
    options: { name?: string; purpose?: string; status?: number; code?: string } = {},
  ): Promise<Json> {
    const { name = "a.txt", purpose = "user_data", status = 200, code } = options;
    const body = new FormData();
    body.append("purpose", purpose);
    body.append("file", new Blob([bytes]), name);
    return this.asking.ask(`${this.url}/v1/files`, { method: "POST", body }, { status, code });
  }
  beginUpload(bytes: number, expected: { status: number; code?: string } = { status: 200 }): Promise<Json> {
    const body = { filename: "a.txt", bytes, mime_type: "text/plain", purpose: "user_data" };
    return this.post("/v1/uploads", body, expected);
  }
  putPart(
    upload: string,
    bytes: Uint8Array<ArrayBuffer>,
    expected: { status: number; code?: string } = { status: 200 },
  ): Promise<Json> {
    const body = new FormData();
    body.append("data", new Blob([bytes]), "part");
    return this.asking.ask(`${this.url}/v1/uploads/${upload}/parts`, { method: "POST", body }, expected);
  }
  /** Alive, and the file as it was stored. */
  async serves(file: Json, content: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.get("/healthz");
    const text = await this.get(`/v1/files/${file.id}/content`);
    this.asking.expect(text === new TextDecoder().decode(content), "the content of a file has changed");
  }
}
