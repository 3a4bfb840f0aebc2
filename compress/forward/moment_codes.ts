/** X'X that a worker sums in codes: how inputs become codes, and what codes leave out. */
import type { Tensor } from "../linalg/runtime.ts";
import { expertOf, type InputName, type ModelSpec } from "../../models/spec.ts";
import { type ByInput, byInput, inputWidths } from "./block_graph.ts";
import { addMoments, addRows, codeFactorRows, codeFactors, codeScales } from "./moments.ts";

export class MomentCodes {
  readonly #scales: ByInput<Float64Array>;
  #inputs: Record<string, Tensor> | null = null;

  /** @param sizes root mean squares of the inputs' columns, about */
  constructor(
    sizes: ByInput<Float64Array>,
    readonly shape: { readonly spec: ModelSpec; readonly length: number },
  ) {
    this.#scales = byInput(shape.spec, (_, name) => codeScales(name, sizes[name]));
  }

  /** What the graph takes to make codes. */
  inputs(): Record<string, Tensor> {
    const { length, spec } = this.shape;
    return this.#inputs ??= Object.fromEntries(
      (Object.entries(inputWidths(spec)) as [InputName, number][])
        .filter(([name]) => expertOf(name) === null)
        .map(([name, dIn]) => [codeFactors(name), {
          data: codeFactorRows(this.#scales[name], length),
          shape: [length, dIn],
        }]),
    );
  }

  /** Adds a graph's panels and its rows at position 0 to H `[dIn, dIn]`. */
  add(name: InputName, H: Float32Array, outputs: Readonly<Record<string, Tensor>>): void {
    addMoments(name, H, outputs, this.#scales[name]);
    addRows(H, outputs[`${name}.first`].data);
  }
}
