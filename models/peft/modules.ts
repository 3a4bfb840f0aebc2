/** The linear layers of a model as modules of Hugging Face's, which adapters name: some are several layers in one. */
import { FAMILIES, type Family, weightLocations } from "../families/mod.ts";
import type { RowRuns } from "../families/weight_names.ts";
import { blockSpec, linearShapes, type ModelSpec } from "../spec.ts";

/** One layer in a module: which of the module's rows are its own. */
export interface ModulePart {
  /** "block.3.q" */
  readonly layer: string;
  /** `[dOut, dIn]` */
  readonly shape: readonly [number, number];
  readonly rows: RowRuns;
  /** What structured pruning left of the layer, `[dOut, dIn]`; null: all of it. */
  readonly pruned: readonly [number, number] | null;
}

export interface PeftModule {
  /** Path in the model of its language modelling class: "model.layers.3.self_attn.qkv_proj". */
  readonly path: string;
  readonly block: number;
  /** `[dOut, dIn]`, whatever order the weight is stored in: A is `[r, dIn]`, B `[dOut, r]`, of Conv1D too. */
  readonly shape: readonly [number, number];
  readonly parts: readonly ModulePart[];
  /** Stored `[dIn, dOut]` (Conv1D): PEFT calls it fan_in_fan_out. */
  readonly transposed: boolean;
  /** Vector that the rows are multiplied by behind the layer, which an artifact does not know any more; null: none. */
  readonly rowFactors: string | null;
}

const LAYER = /^block\.(\d+)\.(.+)$/;

/** In the order of the model's blocks. Experts that a file stacks in one tensor are no modules. */
export function peftModules(spec: ModelSpec): PeftModule[] {
  const modules = new Map<string, PeftModule & { parts: ModulePart[] }>();
  const whole = linearShapes(spec);
  for (const [role, location] of weightLocations(spec, familyOf(spec).names)) {
    const [, number, name] = LAYER.exec(role) ?? [], block = Number(number);
    const shape = name && whole[name], left = name && linearShapes(blockSpec(spec, block))[name];
    const { tensor, tensorShape, rows, transposed, rowFactors } = location;
    if (!shape || !left || tensorShape.length !== 2) continue;
    const pruned = left[0] === shape[0] && left[1] === shape[1] ? null : left;
    const path = tensor.replace(/\.weight$/, ""), [a, b] = tensorShape;
    const known = modules.get(path) ??
      { path, block, shape: transposed ? [b, a] : [a, b], parts: [], transposed, rowFactors };
    known.parts.push({ layer: role, shape, rows, pruned });
    modules.set(path, known);
  }
  return [...modules.values()];
}

/** Modules by every path that an adapter may give them: of the model alone, too, without its head's class. */
export function modulesByPath(spec: ModelSpec): ReadonlyMap<string, PeftModule> {
  const { prefixes = [] } = familyOf(spec).names;
  const outer = prefixes[0] ?? "model.", others = prefixes.length > 0 ? prefixes : ["model.", ""];
  return new Map(
    peftModules(spec).flatMap((module) => {
      const inner = module.path.startsWith(outer) ? module.path.slice(outer.length) : module.path;
      return [module.path, ...others.map((prefix) => prefix + inner)].map((path) => [path, module] as const);
    }),
  );
}

function familyOf({ family: name }: ModelSpec): Family {
  const family = FAMILIES.find((f) => f.name === name);
  if (!family) throw new RangeError(`No family ${name}`);
  return family;
}

/** Numbers of the module's rows that are the part's, in the part's order. */
export function* rowsOf({ shape: [dOut], rows: { first, count, apart } }: ModulePart): Generator<number> {
  const run = dOut / count;
  for (let i = 0; i < count; i++) {
    for (let row = 0; row < run; row++) yield first + i * apart + row;
  }
}
