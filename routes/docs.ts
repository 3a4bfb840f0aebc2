/** GET /docs: the OpenAPI document for people, without anything from elsewhere. */
import { createHash } from "node:crypto";
import { OpenAPIHono } from "@hono/zod-openapi";

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Oatmill HTTP API</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark; }
  summary { cursor: pointer; padding: .3rem 0; }
  code { font-family: ui-monospace, monospace; }
  pre { overflow: auto; padding: .5rem; border: 1px solid #8886; }
</style>
<h1>Oatmill HTTP API</h1>
<p>The whole document: <a href="/openapi.json">/openapi.json</a></p>
<main>Loading</main>
<script type="module">
  const main = document.querySelector("main");
  const make = (name, text = "", ...children) => {
    const element = document.createElement(name);
    element.append(text, ...children);
    return element;
  };
  const { paths, components } = await (await fetch("/openapi.json")).json();
  main.replaceChildren();
  const show = (value) => make("pre", JSON.stringify(value, null, 2));
  for (const [path, operations] of Object.entries(paths)) {
    for (const [method, { summary, ...rest }] of Object.entries(operations)) {
      const title = make("summary", "", make("code", method.toUpperCase() + " " + path), " ", summary ?? "");
      main.append(make("details", "", title, show(rest)));
    }
  }
  main.append(make("h2", "Schemas"));
  for (const [name, schema] of Object.entries(components.schemas)) {
    main.append(make("details", "", make("summary", "", make("code", name)), show(schema)));
  }
</script>
</html>
`;

/** The page's own script and style run, by their hashes, and nothing else does. */
const POLICY = [
  "default-src 'none'",
  `script-src ${sourceHash("script")}`,
  `style-src ${sourceHash("style")}`,
  "connect-src 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join("; ");

function sourceHash(element: string): string {
  const [, text] = new RegExp(`<${element}[^>]*>([^]*?)</${element}>`).exec(PAGE)!;
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}

export function docs(): OpenAPIHono {
  const app = new OpenAPIHono();
  app.get("/docs", (c) => c.html(PAGE, 200, { "content-security-policy": POLICY }));
  return app;
}
