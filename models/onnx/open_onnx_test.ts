import assert from "node:assert/strict";
import { OatmillError } from "../../errors.ts";
import { oracleTest, shared } from "../testing/shared.ts";
import fc from "fast-check";
import { graphInputs } from "./graph_inputs.ts";
import { findLayers } from "./graph_layers.ts";
import { encodeModel, newMessage } from "./onnx_proto.ts";
import { openOnnx } from "./open_onnx.ts";
import { stagesOf } from "./segments.ts";
import { floats, node, onnxFile, textClassifier, value } from "./testing/graphs.ts";

/** The manifest asks for 2 s of every file; ten times as much passes on a machine that is shared. */
const MAX_MS = 20_000;

interface Attack {
  readonly file: string;
  readonly expect: string;
  readonly error_should_mention: string;
}

oracleTest("openOnnx() refuses hostile files", "oracles/attacks/onnx", async () => {
  const { files } = JSON.parse(await Deno.readTextFile(shared("oracles/attacks/MANIFEST.json")));
  const attacks = (files as Attack[]).filter(({ file }) => file.startsWith("onnx/"));
  assert.equal(attacks.length, 14);
  for (const { file, expect, error_should_mention } of attacks) {
    assert.equal(expect, "refuse");
    const start = performance.now();
    const error = await openOnnx(shared(`oracles/attacks/${file}`).pathname).then(() => null, (e) => e);
    assert.ok(performance.now() - start < MAX_MS, `${file} took too long`);
    assert.ok(error instanceof OatmillError, `${file}: ${error}`);
    assert.match(error.message, new RegExp(error_should_mention, "i"), file);
    assert.ok(error.message.includes(file.slice("onnx/".length)), "the message names the file");
    assert.doesNotMatch(error.message, /root:/);
  }
});

oracleTest("openOnnx() brings external values in", "oracles/onnx", async () => {
  for (const name of ["mlp", "mlp_external", "conv_shared", "vit_dynamo", "vit_torchscript"]) {
    const { graph } = await openOnnx(shared(`oracles/onnx/${name}.onnx`).pathname);
    assert.ok(
      graph.initializer.every(({ rawData, dataLocation }) => rawData.length > 0 && dataLocation === 0),
    );
  }
});

oracleTest("openOnnx() counts external values against the limit", "oracles/onnx", async () => {
  const path = shared("oracles/onnx/mlp_external.onnx").pathname;
  await assert.rejects(openOnnx(path, { maxBytes: 60_000 }), { code: "too_large" });
  await assert.rejects(openOnnx(path, { maxBytes: 800 }), { code: "too_large" });
  await openOnnx(path, { maxBytes: 66_100 });
});

async function opened(bytes: Uint8Array): Promise<OatmillError | null> {
  const path = await Deno.makeTempFile({ suffix: ".onnx" });
  try {
    await Deno.writeFile(path, bytes);
    const model = await openOnnx(path);
    stagesOf(findLayers(model, { smallest: 0 }).rest);
    return null;
  } catch (error) {
    if (error instanceof OatmillError) return error;
    throw error;
  } finally {
    await Deno.remove(path);
  }
}

Deno.test("a damaged file opens or is refused, whatever its bytes are", async () => {
  const valid = textClassifier();
  assert.equal(await opened(valid), null);
  const place = fc.nat(valid.length - 1), change = fc.tuple(place, fc.nat(255));
  const damage = fc.record({
    changes: fc.array(change, { minLength: 1, maxLength: 8 }),
    cut: fc.option(place),
  });
  await fc.assert(
    fc.asyncProperty(damage, async ({ changes, cut }) => {
      const bytes = valid.slice(0, cut ?? valid.length);
      for (const [at, byte] of changes) bytes[at] = byte;
      await opened(bytes);
    }),
    { numRuns: 300 },
  );
});

Deno.test("a file must be a graph that hangs together", async () => {
  const w = floats("w", [2, 2], (i) => i), x = value("x", [1, 2]), y = value("y", [1, 2]);
  const product = node("MatMul", ["x", "w"], "y"),
    good = { input: [x], output: [y], initializer: [w], node: [product] };
  const cases: [Parameters<typeof onnxFile>[0], RegExp][] = [
    [{ ...good, node: [] }, /no graph with nodes/],
    [{ ...good, node: [node("MatMul", ["x", "v"], "y")] }, /"v" is read and never written/],
    [{ ...good, node: [product, node("Relu", ["x"], "y")] }, /"y" is written twice/],
    [{ ...good, node: [node("Relu", ["y"], "y")] }, /cycle/],
    [{ ...good, output: [value("z", [1])] }, /Output "z" is never written/],
    [{ ...good, output: [] }, /no output/],
    [{ ...good, initializer: [w, w] }, /"w" is there twice/],
  ];
  assert.equal(await opened(onnxFile(good)), null);
  for (const [graph, message] of cases) {
    const error = await opened(onnxFile(graph));
    assert.equal(error?.code, "invalid_checkpoint", String(message));
    assert.match(error.message, message);
  }
});

Deno.test("a function's attributes hold no tensors that nobody has read", async () => {
  const external = newMessage("TensorProto", {
    name: "t",
    dims: [4n],
    dataType: 1,
    dataLocation: 1,
    externalData: [{ key: "location", value: "deno.json" }],
  });
  const graph = {
    input: [value("x", [1, 2])],
    output: [value("y", [1, 2])],
    initializer: [],
    node: [node("Relu", ["x"], "y")],
  };
  const withDefault = (fields: Parameters<typeof newMessage<"AttributeProto">>[1]) =>
    encodeModel({
      irVersion: 8n,
      opsetImport: [{ domain: "", version: 17n }],
      graph: newMessage("GraphProto", { name: "test", ...graph }),
      functions: [newMessage("FunctionProto", {
        name: "f",
        domain: "own",
        attributeProto: [newMessage("AttributeProto", { name: "default", ...fields })],
      })],
    });
  assert.equal(await opened(withDefault({ type: 1, f: 0.5 })), null);
  const error = await opened(withDefault({ type: 4, t: external }));
  assert.equal(error?.code, "unsupported_format");
  assert.match(error.message, /"default" of function "f"/);
});

Deno.test("an input has no more values than any model reads", () => {
  assert.deepEqual(graphInputs({ input: [value("x", [0, 3, -1, 5])] })[0].dims, [null, 3, null, 5]);
  for (const input of [value("x", [1, 3, 2 ** 20, 2 ** 20]), value("input_ids", [1, 2 ** 32], 7)]) {
    assert.throws(() => graphInputs({ input: [input] }), { code: "unsupported_format", message: /at most/ });
  }
});

Deno.test("a node reads as many values as the file has", async () => {
  const names = Array.from({ length: 150_000 }, (_, i) => `v${i}`);
  const file = onnxFile({
    input: [value("x", [1, 2])],
    output: [value("y", [1, 2])],
    initializer: [],
    node: [node("Sum", names, "y"), ...names.map((name) => node("Identity", ["x"], name))],
  });
  assert.equal(await opened(file), null);
});
