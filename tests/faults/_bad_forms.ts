/** Forms that are broken, or hold what no route takes. */
import { type BadInput, jsonInit } from "./_bad_input.ts";

const BOUNDARY = "x-boundary-x";
const encoder = new TextEncoder();

interface Part {
  readonly headers: string;
  readonly body: string;
}
const field = (name: string, body: string): Part => ({
  headers: `content-disposition: form-data; name="${name}"`,
  body,
});
const file = (filename: string, body = "x", name = "files"): Part => ({
  headers: `content-disposition: form-data; name="${name}"; filename="${filename}"`,
  body,
});
const text = (parts: readonly Part[], end = `--${BOUNDARY}--\r\n`) =>
  parts.map(({ headers, body }) => `--${BOUNDARY}\r\n${headers}\r\n\r\n${body}\r\n`).join("") + end;
const form = (body: string, type = `multipart/form-data; boundary=${BOUNDARY}`): RequestInit => ({
  method: "POST",
  headers: { "content-type": type },
  body: encoder.encode(body),
});

/** Whatever the route: no whole form. */
const BROKEN: Readonly<Record<string, RequestInit>> = {
  "no boundary": form(text([field("name", "a")]), "multipart/form-data"),
  "an empty boundary": form(text([field("name", "a")]), "multipart/form-data; boundary="),
  "another boundary": form(text([field("name", "a")]), "multipart/form-data; boundary=other"),
  "an empty body": form(""),
  "an end alone": form(`--${BOUNDARY}--\r\n`),
  "no end": form(text([file("a.gguf")], "")),
  "an end within a part": form(
    `--${BOUNDARY}\r\ncontent-disposition: form-data; name="files"; filename="a.gguf"\r\n\r\nxx`,
  ),
  "an end within headers": form(`--${BOUNDARY}\r\ncontent-dispo`),
  "parts without headers": form(text([{ headers: "", body: "x" }])),
  "a part without a name": form(text([{ headers: "content-disposition: form-data", body: "x" }])),
  "headers without end": form(text([{ headers: `x-long: ${"x".repeat(100_000)}`, body: "x" }])),
  "bytes that are no form": form("\0\x01\x02\xff".repeat(1000)),
  "a form of another kind": form(text([field("name", "a")]), `multipart/mixed; boundary=${BOUNDARY}`),
  "JSON under a form's type": form("{}"),
  "text": form("x", "text/plain"),
  "no media type": { method: "POST", body: encoder.encode("x") },
  "a form under JSON's type": jsonInit(text([file("a.gguf")])),
};

const recipe = (value: unknown) =>
  text([field("recipe", typeof value === "string" ? value : JSON.stringify(value)), file("a.gguf")]);
const MODELS: Readonly<Record<string, string>> = {
  "no files": text([field("name", "a")]),
  "a file in another field": text([file("a.gguf", "x", "file")]),
  "a file of no known kind": text([file("a.exe")]),
  "a pickle": text([file("pytorch_model.bin")]),
  "a file without a name": text([file("")]),
  "a name that leaves the folder": text([file("../../a.gguf")]),
  "an absolute name": text([file("/etc/passwd.gguf")]),
  "a name of another system": text([file("..\\..\\a.gguf")]),
  "a NUL in a name": text([file("a\0.gguf")]),
  "a line break in a name": text([file("a%0d%0ab")]),
  "a long name": text([file(`${"a".repeat(5000)}.gguf`)]),
  "the same file twice": text([file("config.json", "{}"), file("config.json", "{}")]),
  "two models": text([file("a.gguf"), file("b.gguf")]),
  "a folder without weights": text([file("config.json", "{}")]),
  "weights alone": text([file("model.safetensors")]),
  "thousands of fields": text(Array.from({ length: 5000 }, (_, i) => field(`f${i}`, "x"))),
  "thousands of files": text(Array.from({ length: 2000 }, (_, i) => file(`${i}.txt`))),
  "a model's name that leaves the folder": text([field("name", "../x"), file("a.gguf")]),
  "an empty model's name": text([field("name", ""), file("a.gguf")]),
  "a long model's name": text([field("name", "x".repeat(97)), file("a.gguf")]),
  "a recipe that is no JSON": recipe("{"),
  "a recipe that is an array": recipe([]),
  "a large recipe": recipe(" ".repeat(3 * 2 ** 20)),
  "a nested recipe": recipe("[".repeat(100_000)),
  "an unknown method": recipe({ method: "magic" }),
  "a rate of 1": recipe({ rate: 1 }),
  "a negative rate": recipe({ rate: -0.1 }),
  "a rate that is a string": recipe({ rate: "0.5" }),
  "an infinite rate": recipe('{"rate":1e999}'),
  "an unknown key": recipe({ rat: 0.5 }),
  "a text that did not come": recipe({ calibration: { text: "other.txt" } }),
  "a text of the server's": recipe({ calibration: { text: "/etc/passwd" } }),
  "no sequences": recipe({ calibration: { sequences: 0 } }),
};
const FILES: Readonly<Record<string, string>> = {
  "no purpose": text([file("a.txt", "x", "file")]),
  "an unknown purpose": text([field("purpose", "nonsense"), file("a.txt", "x", "file")]),
  "no file": text([field("purpose", "user_data")]),
  "two files": text([field("purpose", "user_data"), file("a.txt", "x", "file"), file("b.txt", "x", "file")]),
  "a file in another field": text([field("purpose", "user_data"), file("a.txt", "x", "files")]),
  "a control character in a name": text([field("purpose", "user_data"), file("a\x07.txt", "x", "file")]),
  "a pickle as a model": text([field("purpose", "model"), file("a.bin", "x", "file")]),
  "a time to expire": text([
    field("purpose", "user_data"),
    field("expires_after[anchor]", "created_at"),
    file("a.txt", "x", "file"),
  ]),
};
const CLASSIFY: Readonly<Record<string, string>> = {
  "no image": text([field("model", "stories-5m")]),
  "an image that is a field": text([field("model", "stories-5m"), field("image", "x")]),
  "no model": text([file("a.png", "x", "image")]),
  "top_k of 0": text([field("model", "stories-5m"), field("top_k", "0"), file("a.png", "x", "image")]),
};
const FORMS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "/v1/models": MODELS,
  "/v1/files": FILES,
  "/v1/classify": CLASSIFY,
  "/v1/uploads/none/parts": {},
};

export const badForms = (): BadInput[] =>
  Object.entries(FORMS).flatMap(([path, forms]) => [
    ...Object.entries(BROKEN).map(([what, init]) => ({ what, path, init })),
    ...Object.entries(forms).map(([what, body]) => ({ what, path, init: form(body) })),
  ]);
