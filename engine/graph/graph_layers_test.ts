/** Graphs of every kind of layer: what is found in them, and that what replaces it computes the same. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { denseGraph, findLayers, LINEAR_DOMAIN } from "../../models/onnx/graph_layers.ts";
import { encodeModel, newMessage, type NodeProto, type TensorProto } from "../../models/onnx/onnx_proto.ts";
import { openOnnx } from "../../models/onnx/open_onnx.ts";
import { inputGroups, stagesOf } from "../../models/onnx/segments.ts";
import { floats, node, onnxFile, type SmallGraph, value } from "../../models/onnx/testing/graphs.ts";
import { OnnxRuntime } from "./ort.ts";

const TOLERANCE = 1e-4;

async function opened(graph: SmallGraph, versions: Parameters<typeof onnxFile>[1] = {}) {
  const path = await Deno.makeTempFile({ suffix: ".onnx" });
  try {
    await Deno.writeFile(path, onnxFile(graph, versions));
    return await openOnnx(path);
  } finally {
    await Deno.remove(path);
  }
}

async function run(model: Uint8Array<ArrayBuffer>, cols: number): Promise<number[]> {
  const runtime = await OnnxRuntime.load(), session = await runtime.session(model, 1);
  const data = Float32Array.from({ length: 3 * cols }, (_, i) => Math.sin(i + 1));
  const { y } = await runtime.run(session, { x: runtime.tensor({ type: "float32", dims: [3, cols], data }) });
  await session.release();
  return [...y.data as Float32Array];
}

/** How one layer of a chain is written. */
const layerKind = fc.record({
  op: fc.constantFrom("MatMul", "Gemm"),
  transB: fc.boolean(),
  alpha: fc.constantFrom(1, 0.5, -2),
  beta: fc.constantFrom(1, 3, 0.25),
  bias: fc.constantFrom("none", "vector", "scalar", "computed"),
  weight: fc.constantFrom("initializer", "constant", "identity", "transposed", "half", "shared"),
  dOut: fc.integer({ min: 1, max: 9 }),
});
type LayerKind = typeof layerKind extends fc.Arbitrary<infer T> ? T : never;

/** A chain of such layers with tanh in between; `shared` weights are those of the layer before, where they fit. */
function chain(kinds: readonly LayerKind[], cols: number): SmallGraph {
  const nodes: NodeProto[] = [], initializer: TensorProto[] = [];
  let x = "x", dIn = cols, last: { name: string; dIn: number; dOut: number; outIn: boolean } | null = null;
  kinds.forEach(({ op, transB, alpha, beta, bias, weight, dOut: own }, i) => {
    const outIn = op === "Gemm" && transB;
    const share: typeof last = weight === "shared" && last && last.dIn === dIn && last.outIn === outIn
      ? last
      : null;
    const dOut: number = share?.dOut ?? own, dims = outIn ? [dOut, dIn] : [dIn, dOut];
    const name: string = share?.name ?? weightOf(weight, `w${i}`, dims, nodes, initializer);
    last = { name, dIn, dOut, outIn };
    const inputs = [x, name];
    if (op === "Gemm" && bias !== "none") {
      initializer.push(floats(`b${i}`, bias === "scalar" ? [1] : [dOut], (k) => Math.cos(k + i)));
      if (bias === "computed") nodes.push(node("Abs", [`b${i}`], `abs${i}`));
      inputs.push(bias === "computed" ? `abs${i}` : `b${i}`);
    }
    const gemm = { transB: BigInt(+transB), alpha, beta };
    nodes.push(node(op, inputs, `m${i}`, op === "Gemm" ? gemm : {}));
    x = i === kinds.length - 1 ? "y" : `t${i}`;
    nodes.push(node("Tanh", [`m${i}`], x));
    dIn = dOut;
  });
  return {
    node: nodes,
    initializer,
    input: [value("x", ["rows", cols])],
    output: [value("y", ["rows", dIn])],
  };
}

function weightOf(
  kind: LayerKind["weight"],
  name: string,
  dims: readonly number[],
  nodes: NodeProto[],
  initializer: TensorProto[],
): string {
  const at = (i: number) => Math.sin(i * i + name.length);
  const made = `${name}/made`;
  if (kind === "constant") nodes.push(node("Constant", [], made, { value: floats("", dims, at) }));
  else if (kind === "identity") nodes.push(node("Identity", [name], made));
  else if (kind === "transposed") nodes.push(node("Transpose", [name], made, { perm: [1n, 0n] }));
  else if (kind === "half") nodes.push(node("Cast", [name], made, { to: 1n }));
  if (kind === "half") initializer.push(halves(name, dims, at));
  else if (kind !== "constant") {
    initializer.push(floats(name, kind === "transposed" ? dims.toReversed() : dims, at));
  }
  return kind === "initializer" || kind === "shared" ? name : made;
}

const halves = (name: string, dims: readonly number[], of: (i: number) => number): TensorProto => {
  const data = Float16Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => of(i));
  return newMessage("TensorProto", {
    name,
    dims: dims.map(BigInt),
    dataType: 10,
    rawData: new Uint8Array(data.buffer),
  });
};

Deno.test("findLayers() finds every layer however it is written, and what replaces it computes the same", async () => {
  const graphs = fc.tuple(
    fc.array(layerKind, { minLength: 1, maxLength: 5 }),
    fc.integer({ min: 1, max: 9 }),
  );
  await fc.assert(
    fc.asyncProperty(graphs, async ([kinds, cols]) => {
      const graph = chain(kinds, cols), layered = findLayers(await opened(graph), { smallest: 0 });
      const { rest, layers } = layered;
      const linears = rest.graph.node.filter(({ domain }) => domain === LINEAR_DOMAIN);
      assert.equal(linears.length, kinds.length);
      assert.ok(rest.graph.initializer.every(({ name }) => !name.startsWith("w")), "weights are gone");
      assert.equal(inputGroups(rest.graph).length, layers.length);
      assert.ok(stagesOf(rest).length > kinds.length - 1);
      const [expected, found] = [
        await run(onnxFile(graph), cols),
        await run(encodeModel(denseGraph(layered)), cols),
      ];
      const worst = found.reduce((most, y, i) => Math.max(most, Math.abs(y - expected[i])), 0);
      assert.ok(found.length === expected.length && worst < TOLERANCE, `off by ${worst}`);
    }),
    { numRuns: 40 },
  );
});

Deno.test("a weight that something else reads stays in the graph; small and computed ones are no layers", async () => {
  const graph: SmallGraph = {
    input: [value("x", ["rows", 6]), value("v", [6, 6])],
    initializer: [floats("w", [6, 6], (i) => i), floats("tiny", [6, 2], (i) => i)],
    node: [
      node("MatMul", ["x", "w"], "a"),
      node("Mul", ["w", "v"], "scaled"), // w is read here as well
      node("MatMul", ["a", "scaled"], "b"),
      node("MatMul", ["b", "tiny"], "c"),
      node("MatMul", ["w", "v"], "d"), // w from the left
    ],
    output: [value("c", ["rows", 2]), value("d", [6, 6])],
  };
  const { layers, rest } = findLayers(await opened(graph), { smallest: 13 });
  assert.deepEqual(layers.map(({ name, shape, inputs }) => [name, shape, inputs]), [["a", [6, 6], ["x"]]]);
  assert.ok(rest.graph.initializer.some(({ name }) => name === "w"));
  assert.equal(rest.graph.node.filter(({ domain }) => domain === LINEAR_DOMAIN).length, 1);
});

Deno.test("layers of one value are one step; nodes out of order are put in order", async () => {
  const w = (name: string) => floats(name, [5, 5], (i) => Math.sin(i));
  const graph: SmallGraph = {
    input: [value("x", ["rows", 5])],
    initializer: [w("q"), w("k"), w("o")],
    node: [
      node("MatMul", ["s", "o"], "y"),
      node("Add", ["xq", "xk"], "s"),
      node("MatMul", ["x", "k"], "xk"),
      node("MatMul", ["x", "q"], "xq"),
    ],
    output: [value("y", ["rows", 5])],
  };
  const stages = stagesOf(findLayers(await opened(graph), { smallest: 0 }).rest);
  assert.deepEqual(
    stages.map(({ segment, steps }) => [segment?.nodes.length ?? 0, steps.map((s) => s.layers.length)]),
    [
      [0, [2]],
      [1, [1]],
    ],
  );
});

Deno.test("graphs of any version that ONNX Runtime has are read; older ones have weights as inputs", async () => {
  const w = floats("w", [4, 4], (i) => Math.sin(i)), b = floats("b", [4], (i) => i);
  const graph: SmallGraph = {
    input: [value("x", [3, 4])],
    initializer: [w, b],
    node: [node("Gemm", ["x", "w", "b"], "y", { alpha: 2, beta: 0.5 })],
    output: [value("y", [3, 4])],
  };
  const expected = await run(onnxFile(graph), 4);
  const old = { ...graph, input: [...graph.input, value("w", [4, 4]), value("b", [4])] };
  const versions = [[old, 3n, 7n], [old, 3n, 9n], [graph, 7n, 13n], [graph, 10n, 22n], [
    graph,
    12n,
    26n,
  ]] as const;
  for (const [of, ir, opset] of versions) {
    const layered = findLayers(await opened(of, { ir, opset }), { smallest: 0 });
    assert.deepEqual(layered.rest.graph.input.map(({ name }) => name), ["x"]);
    const found = await run(encodeModel(denseGraph(layered)), 4);
    assert.ok(found.every((y, i) => Math.abs(y - expected[i]) < TOLERANCE), `IR ${ir}, opset ${opset}`);
  }
  for (const opset of [6n, 27n]) {
    await assert.rejects(opened(graph, { opset }), { code: "unsupported_format", message: /Opset version/ });
  }
});

Deno.test("weights that are cast from whole numbers are no layers", async () => {
  const codes = newMessage("TensorProto", {
    name: "w",
    dims: [4n, 4n],
    dataType: 3,
    rawData: new Uint8Array(16),
  });
  const graph: SmallGraph = {
    input: [value("x", ["rows", 4])],
    initializer: [codes],
    node: [node("Cast", ["w"], "wf", { to: 1n }), node("MatMul", ["x", "wf"], "y")],
    output: [value("y", ["rows", 4])],
  };
  assert.equal(findLayers(await opened(graph), { smallest: 0 }).layers.length, 0);
});
