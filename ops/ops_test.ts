/** The files that watch a server: they name what exists, and programs that read such files find nothing wrong. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import { type InstrumentInfo, INSTRUMENTS } from "../telemetry/instruments.ts";
import { Telemetry } from "../telemetry/telemetry.ts";
import { ServerProcess } from "../tests/server_process.ts";
import { until } from "../tests/until.ts";

// deno-lint-ignore no-explicit-any -- configuration files and JSON answers, looked into by path
type Json = any;

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const text = (name: string) => Deno.readTextFileSync(path(name));
const yaml = (name: string): Json => parse(text(name));
const dashboard: Json = JSON.parse(text("grafana/dashboards/oatmill.json"));
const targets: Json[] = dashboard.panels.flatMap((p: Json) => p.targets ?? []);
const rules: Json[] = yaml("prometheus/alerts.yml").groups.flatMap((g: Json) => g.rules);
const queries: string[] = [...targets, ...rules].map(({ expr }) => expr);

/** Names of time series, as a server with every instrument in use shows them. */
async function seriesNames(): Promise<Set<string>> {
  const telemetry = await Telemetry.open({ version: "0", otlp: null });
  const entries = Object.entries(INSTRUMENTS) as [never, InstrumentInfo][];
  telemetry.observe((report) => {
    for (const [key, { kind }] of entries) if (kind.startsWith("observable")) report(key, 1);
  });
  for (const [key, { kind }] of entries) {
    if (kind === "histogram") telemetry.record(key, 1);
    if (kind === "counter") telemetry.add(key, 1);
    if (kind === "gauge") telemetry.set(key, 1);
  }
  const lines = (await telemetry.metricsText()).split("\n").filter((l) => l !== "" && !l.startsWith("#"));
  await telemetry.close();
  return new Set(lines.map((line) => line.split(/[{ ]/)[0]));
}

Deno.test("dashboard and alerts ask for metrics that exist, and every metric is on the dashboard", async () => {
  const known = await seriesNames();
  const named = queries.flatMap((q) =>
    q.match(/\b(?:oatmill|gen_ai_server|gen_ai_client|process)_\w+(?=[{[ ])/g) ?? []
  );
  assert.ok(named.length > 40);
  for (const name of named) assert.ok(known.has(name), name);
  const shown = targets.map(({ expr }) => expr).join("\n");
  const base = (name: string) => name.replace(/_(bucket|count|sum|total)$/, "");
  // Usage by request is what the counters of tokens sum up.
  const elsewhere = new Set(["target_info", "gen_ai_client_token_usage"]);
  for (const name of known) assert.ok(elsewhere.has(base(name)) || shown.includes(base(name)), name);
});

Deno.test("the dashboard's panels have ids, places and descriptions of their own", () => {
  const { panels } = dashboard;
  assert.equal(new Set(panels.map((p: Json) => p.id)).size, panels.length);
  const cells = new Set<string>();
  for (const { title, gridPos: { x, y, w, h } } of panels) {
    assert.ok(x + w <= 24, title);
    for (let i = x; i < x + w; i++) {
      for (let j = y; j < y + h; j++) {
        assert.ok(!cells.has(`${i},${j}`), title);
        cells.add(`${i},${j}`);
      }
    }
  }
});

Deno.test("compose.yml ties what is there: files, ports, secrets and the image's own command", () => {
  const { services, secrets, volumes } = yaml("compose.yml");
  for (const [name, service] of Object.entries<Json>(services)) {
    for (const mount of service.volumes ?? []) {
      const [from] = mount.split(":");
      if (from.startsWith(".")) Deno.statSync(path(from));
      else assert.ok(from in volumes, `${name}: ${mount}`);
    }
    for (const port of service.ports ?? []) assert.match(port, /^127\.0\.0\.1:/, name);
    for (const secret of service.secrets ?? []) assert.ok(secret in secrets, secret);
    if (service.image) assert.match(service.image, /:v?\d+\.\d+\.\d+$/, name);
  }
  const [scrape] = yaml("prometheus/prometheus.yml").scrape_configs;
  assert.deepEqual(scrape.static_configs, [{ targets: ["oatmill:8000"] }]);
  assert.equal(scrape.authorization.credentials_file, `/run/secrets/${services.prometheus.secrets[0]}`);
  const image = JSON.parse(/^CMD (\["run"[^]*\])$/m.exec(text("../Dockerfile"))![1].replaceAll("\\\n", ""));
  const reaches = (word: string) => word.replace(",collector:4318", "");
  assert.deepEqual(services.oatmill.command.map(reaches), image);
});

Deno.test("the collector's pipelines are made of parts that it has, and go where compose.yml has something", () => {
  const { service, ...parts } = yaml("otel-collector.yml");
  const { services } = yaml("compose.yml");
  for (const [signal, pipeline] of Object.entries<Json>(service.pipelines)) {
    for (const kind of ["receivers", "processors", "exporters"]) {
      for (const part of pipeline[kind]) assert.ok(part in parts[kind], `${signal}: ${part}`);
    }
  }
  assert.ok(parts.exporters["otlp/jaeger"].endpoint.split(":")[0] in services);
});

const installed = (program: string): boolean => {
  try {
    return new Deno.Command(program, { args: ["--version"], stdout: "null", stderr: "null" }).outputSync()
      .success;
  } catch {
    return false;
  }
};
async function promtool(...args: string[]): Promise<void> {
  const command = new Deno.Command("promtool", { args, cwd: path("prometheus") });
  const { success, stdout, stderr } = await command.output();
  assert.ok(success, new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr));
}
const note = (program: string) => installed(program) ? "" : ` (ignored: ${program} is not installed)`;

Deno.test({
  name: `promtool finds no fault in configuration and rules, and alerts fire when they should${
    note("promtool")
  }`,
  ignore: !installed("promtool"),
  fn: async () => {
    await promtool("check", "config", "--syntax-only", "prometheus.yml");
    await promtool("check", "rules", "alerts.yml");
    await promtool("test", "rules", "alerts_test.yml");
  },
});

/** A Prometheus on a free port that scrapes the server with a key, for a second at a time. */
async function prometheus(
  dir: string,
  { url, key }: { url: string; key: string },
): Promise<Deno.ChildProcess> {
  await Deno.writeTextFile(`${dir}/key`, key);
  const [scrape] = yaml("prometheus/prometheus.yml").scrape_configs;
  const config = {
    global: { scrape_interval: "1s" },
    scrape_configs: [{
      ...scrape,
      authorization: { ...scrape.authorization, credentials_file: `${dir}/key` },
      static_configs: [{ targets: [new URL(url).host] }],
    }],
  };
  await Deno.writeTextFile(`${dir}/prometheus.yml`, JSON.stringify(config)); // JSON is YAML
  return new Deno.Command("prometheus", {
    args: [
      `--config.file=${dir}/prometheus.yml`,
      `--storage.tsdb.path=${dir}/data`,
      "--web.listen-address=127.0.0.1:0",
      "--log.format=json",
    ],
    stdout: "null",
    stderr: "piped",
  }).spawn();
}

/** The address that Prometheus logs; goes on reading, so that it never waits for us. */
async function addressOf(child: Deno.ChildProcess): Promise<string> {
  const address = Promise.withResolvers<string>();
  (async () => {
    let seen = "";
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
      seen += text;
      const line = seen.split("\n").find((l) => l.includes('"msg":"Listening on"') && l.endsWith("}"));
      if (line) address.resolve(`http://${JSON.parse(line).address}`);
    }
    address.reject(new Error(`Prometheus ended: ${seen}`));
  })();
  return await address.promise;
}

const KEY = "a-key-of-the-test-with-some-length";

Deno.test({
  name: `Prometheus scrapes the server and answers every query of dashboard and alerts${note("prometheus")}`,
  ignore: !installed("prometheus"),
  fn: async () => {
    const dir = await Deno.makeTempDir();
    await using server = await ServerProcess.start(`${dir}/server`, {
      env: { OATMILL_API_KEYS: KEY },
      args: ["--no-bundled"],
    });
    const child = await prometheus(dir, { url: server.url, key: KEY });
    try {
      const url = await addressOf(child);
      const query = async (query: string): Promise<Json> => {
        const body = new URLSearchParams({ query });
        const response = await fetch(`${url}/api/v1/query`, { method: "POST", body });
        return response.status === 503 ? {} : await response.json(); // while it starts
      };
      await until(async () => (await query("oatmill_ready")).data?.result.length === 1);
      assert.deepEqual((await query("up")).data.result.map((r: Json) => r.value[1]), ["1"]);
      const filled = (q: string) =>
        q.replaceAll("$__rate_interval", "1m").replaceAll("$__range", "1h").replaceAll(
          /\$(model|instance)/g,
          ".*",
        );
      for (const q of queries) assert.equal((await query(filled(q))).status, "success", q);
      await until(async () =>
        (await query('oatmill_http_requests_total{http_route="/metrics"} > 1')).data.result.length > 0
      );
    } finally {
      child.kill("SIGTERM");
      await child.status;
      await Deno.remove(dir, { recursive: true });
    }
  },
});
