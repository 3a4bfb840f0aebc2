/** `bench kernels`. */
import { benchKernels, type BenchKernelsOptions, type BenchKernelsReport } from "../bench/kernels.ts";
import { SEQUENCES } from "../bench/machine.ts";
import type { TileSize } from "../kernels/abi.ts";
import type { Shape2 } from "../kernels/layout.ts";
import type { SyntheticShape } from "../models/synthetic_shapes.ts";
import { note, printResult, table } from "./output.ts";

export interface BenchKernelsCommandOptions extends Pick<BenchKernelsOptions, "threads" | "autotune"> {
  readonly kernel?: readonly string[];
  readonly shape?: readonly Shape2[];
  readonly model?: readonly SyntheticShape[];
  readonly batch?: readonly TileSize[];
  readonly all?: boolean;
  readonly json?: boolean;
}

export async function benchKernelsCommand(options: BenchKernelsCommandOptions): Promise<void> {
  const { kernel, shape, model, batch, threads, all, autotune } = options;
  const report = await benchKernels({
    formats: kernel,
    shapes: shape,
    models: model,
    batches: batch,
    threads,
    allVariants: all,
    autotune,
    onResult: (r) =>
      note(
        `${r.name} ${r.shape.join("x")}: ${r.gw_per_second.toFixed(1)} Gw/s, ${
          r.gb_per_second.toFixed(1)
        } GB/s, ${percent(r.roof_share)} of ${r.binds}`,
      ),
  });
  printResult(report, { json: options.json, lines: () => kernelLines(report) });
}

const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;

function kernelLines({ machine, kernels, targets }: BenchKernelsReport): string[] {
  const multiplies = machine.multiply_gmac_per_second_by_threads;
  return [
    ...table([
      ["threads", "read GB/s", "loop", ...SEQUENCES.map((name) => `${name} GMAC/s`)],
      ...machine.read_gb_per_second_by_threads.map((gb, i) => [
        i + 1,
        gb,
        machine.read_loop_by_threads[i],
        ...SEQUENCES.map((name) => multiplies[name][i]),
      ]),
    ]),
    "",
    ...table([
      ["kernel", "model", "layer", "shape", "batch", "Gw/s", "GB/s", "of memory", "of issue", "binds", ""],
      ...kernels.map((k) => [
        k.name,
        k.model,
        k.layer,
        k.shape.join("x"),
        k.batch,
        k.gw_per_second,
        k.gb_per_second,
        percent(k.bandwidth_share),
        percent(k.issue_share),
        k.binds,
        k.meets_target ? "met" : "",
      ]),
    ]),
    "",
    ...targets.map((t) =>
      `${t.work}: ${t.met} of ${t.kernels} kernels have ${t.target}; median ${
        percent(t.median_roof_share)
      } of the roof that binds`
    ),
  ];
}
