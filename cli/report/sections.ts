/** The report's charts, each with the table of what it shows. A section is left out where its numbers are not known. */
import type { ArtifactHeader } from "../../models/formats/artifact_header.ts";
import {
  FILL_BINS,
  type Insight,
  SCALE_BINS,
  type Spectrum,
  SPECTRUM_STEPS,
} from "../../models/formats/insight_file.ts";
import { LINEAR_NAMES } from "../../models/spec.ts";
import { bytesByKind, type LayerFigures, layerFigures } from "./figures.ts";
import type { Section } from "./page.ts";
import { barX, barY, cell, chart, dot, lineY, type PlotOptions, rect, ruleX, text } from "./plot.ts";

export interface Inspected {
  readonly header: ArtifactHeader | null;
  readonly insight: Insight | null;
  /** Pictures, where an image was given. */
  readonly rollout?: Section | null;
}

export function sections({ header, insight, rollout = null }: Inspected): Section[] {
  const layers = layerFigures(header, insight);
  const all = [
    rollout,
    header && perplexity(header),
    header && bytes(header),
    insight && outliersOfBlocks(insight),
    outliersOfLayers(layers, insight),
    rates(layers),
    errors(layers),
    insight && spectra(insight),
    insight && occupancy(insight),
    insight && inputs(insight),
  ];
  return all.filter((section) => section !== null);
}

const WIDTH = 860;
const percent = (x: number): string => `${(100 * x).toFixed(2)} %`;
/** From the first block to the last; visible on white and on black. */
const BLOCK_COLORS = { type: "linear", range: ["#f2a900", "#3b6fd4"], interpolate: "rgb" } as const;

/** Most blocks that an axis names. */
const MOST_TICKS = 16;

function blockAxis(points: readonly { readonly block: number }[]) {
  const last = Math.max(...points.map((p) => p.block)), step = Math.ceil((last + 1) / MOST_TICKS);
  const ticks = Array.from({ length: Math.floor(last / step) + 1 }, (_, i) => i * step);
  return { label: "block", ticks, tickFormat: "d" };
}

function perplexity({ perplexity }: ArtifactHeader): Section | null {
  if (!perplexity) return null;
  const bars = [{ model: "dense", value: perplexity.dense }, {
    model: "compressed",
    value: perplexity.compressed,
  }];
  return {
    title: "Perplexity",
    about: `Per token, ${perplexity.tokens} tokens of ${perplexity.text}; lower is better.`,
    charts: [chart("Perplexity of the dense and the compressed model", {
      width: WIDTH,
      height: 110,
      marginLeft: 100,
      marginRight: 60,
      y: { label: null, domain: ["dense", "compressed"] },
      x: { label: "perplexity", grid: true },
      marks: [
        barX(bars, { x: "value", y: "model", fill: "#4269d0" }),
        text(bars, { x: "value", y: "model", text: (d) => d.value.toFixed(2), textAnchor: "start", dx: 5 }),
        ruleX([0]),
      ],
    })],
    head: ["model", "perplexity"],
    rows: bars.map(({ model, value }) => [model, value]),
  };
}

function bytes({ tensors }: ArtifactHeader): Section {
  const kinds = bytesByKind(tensors).map(({ kind, bytes }) => ({ kind, MB: bytes / 1e6 }));
  return {
    title: "Bytes",
    about: "Of the packed tensors, by what they are for.",
    charts: [chart("Megabytes of the packed tensors by kind", {
      width: WIDTH,
      height: 50 + 28 * kinds.length,
      marginLeft: 150,
      marginRight: 60,
      y: { label: null, domain: kinds.map((k) => k.kind) },
      x: { label: "MB", grid: true },
      marks: [
        barX(kinds, { x: "MB", y: "kind", fill: "#4269d0" }),
        text(kinds, { x: "MB", y: "kind", text: (d) => d.MB.toFixed(1), textAnchor: "start", dx: 5 }),
        ruleX([0]),
      ],
    })],
    head: ["kind", "MB"],
    rows: kinds.map(({ kind, MB }) => [kind, MB]),
  };
}

/** OWL's layerwise outlier distribution. */
function outliersOfBlocks({ blocks, multiples }: Insight): Section | null {
  const points = blocks.flatMap(({ outliers }, block) =>
    (outliers ?? []).map((share, i) => ({ block, M: `M = ${multiples[i]}`, share: 100 * share }))
  );
  if (points.length === 0) return null;
  return {
    title: "Outliers of each block",
    about:
      "OWL's layerwise outlier distribution: the share of a block's scores |W| d, all its linear layers together, above M times their mean. Blocks with more of them lose more when they are pruned.",
    charts: [chart("Outlier ratio of each block at four multiples of the mean", {
      width: WIDTH,
      height: 300,
      marginLeft: 60,
      x: blockAxis(points),
      y: { type: "log", label: "% of scores", grid: true, tickFormat: "~g" },
      color: { legend: true, domain: multiples.map((m) => `M = ${m}`) },
      marks: [
        lineY(points.filter((p) => p.share > 0), { x: "block", y: "share", stroke: "M", z: "M" }),
        dot(points.filter((p) => p.share > 0), {
          x: "block",
          y: "share",
          fill: "M",
          r: 2.5,
          title: (p) => `block ${p.block}, ${p.M}: ${p.share.toPrecision(3)} %`,
        }),
      ],
    })],
    head: ["block", ...multiples.map((m) => `M = ${m}`)],
    rows: blocks.map(({ outliers }, i) => [i, ...outliers?.map(percent) ?? multiples.map(() => null)]),
  };
}

interface HeatMap {
  readonly label: string;
  readonly value: (layer: LayerFigures) => number | null;
  /** Colours span at least this much: hardly any difference should look like hardly any. */
  readonly span: number;
}

/** Blocks x layers, one number each. */
function heatMap(layers: readonly LayerFigures[], { label, value, span }: HeatMap): string | null {
  const cells = layers.flatMap((l) => {
    const v = value(l);
    return v === null ? [] : [{ block: l.block, layer: l.layer, value: v }];
  });
  if (cells.length === 0) return null;
  const low = Math.min(...cells.map((c) => c.value)), high = Math.max(...cells.map((c) => c.value));
  return chart(`${label} of each layer: blocks by layers`, {
    width: WIDTH,
    height: 200,
    marginLeft: 60,
    padding: 0,
    x: { ...blockAxis(cells), type: "band" },
    y: { label: null, domain: layerNames(layers) },
    color: {
      type: "quantize",
      domain: [low, Math.max(high, low + span)],
      scheme: "YlGnBu",
      n: 7,
      label,
      legend: true,
      width: 360,
      tickFormat: ".3~g",
    } as PlotOptions["color"],
    marks: [
      cell(cells, {
        x: "block",
        y: "layer",
        fill: "value",
        title: (c) => `block ${c.block}, ${c.layer}: ${label} ${short(c.value)}`,
        inset: 0.5,
      }),
    ],
  });
}

const short = (x: number): string => Number.isInteger(x) ? String(x) : x.toPrecision(3);

/** In execution order. */
function layerNames(layers: readonly { readonly layer: string }[]): string[] {
  const known: readonly string[] = LINEAR_NAMES;
  const found = new Set(layers.map((l) => l.layer));
  return [...known.filter((name) => found.has(name)), ...[...found].filter((name) => !known.includes(name))];
}

function outliersOfLayers(layers: readonly LayerFigures[], insight: Insight | null): Section | null {
  const multiples = insight?.multiples ?? [];
  const map = heatMap(layers, {
    label: `outliers at M = ${multiples[1]}, %`,
    value: (l) => l.outliers && 100 * l.outliers[1],
    span: 0.1,
  });
  if (!map) return null;
  return {
    title: "Outliers of each layer",
    about: "The same of each layer alone, against the layer's own mean.",
    charts: [map],
    head: ["layer", ...multiples.map((m) => `M = ${m}`)],
    rows: layers.map((l) => [l.name, ...l.outliers?.map(percent) ?? multiples.map(() => null)]),
  };
}

function rates(layers: readonly LayerFigures[]): Section | null {
  const maps = [
    heatMap(layers, { label: "rate", value: (l) => l.rate, span: 0.1 }),
    heatMap(layers, { label: "rank", value: (l) => l.rank, span: 8 }),
    heatMap(layers, { label: "kept share of S", value: (l) => l.kept, span: 0.1 }),
  ].filter((map) => map !== null);
  if (maps.length === 0) return null;
  return {
    title: "Rate, rank and kept share",
    about:
      "What compression took from each layer (rate, the share of parameters removed), the columns of L, and the share of S that is stored; a layer that stayed dense keeps 1.",
    charts: maps,
    head: ["layer", "rate", "rank", "kept", "bits", "values", "bytes", "places filled"],
    rows: layers.map((l) => [l.name, l.rate, l.rank, l.kept, l.bits, l.values, l.bytes, l.filled]),
  };
}

function errors(layers: readonly LayerFigures[]): Section | null {
  const of = (label: string, value: (l: LayerFigures) => number | null) => {
    const points = layers.flatMap((l) => {
      const error = value(l);
      return error !== null && error > 0 ? [{ block: l.block, layer: l.layer, error }] : [];
    });
    if (points.length === 0) return [];
    return [chart(`${label} of each layer over the blocks`, {
      width: WIDTH,
      height: 280,
      marginLeft: 60,
      x: blockAxis(points),
      y: { type: "log", label, grid: true, tickFormat: "~g" },
      color: { legend: true, domain: layerNames(layers) },
      marks: [
        lineY(points, { x: "block", y: "error", stroke: "layer", z: "layer" }),
        dot(points, {
          x: "block",
          y: "error",
          fill: "layer",
          r: 2,
          title: (p) => `block ${p.block}, ${p.layer}: ${p.error.toPrecision(3)}`,
        }),
      ],
    })];
  };
  const charts = [...of("error", (l) => l.error), ...of("error of the outputs", (l) => l.inputError)];
  if (charts.length === 0) return null;
  return {
    title: "Errors",
    about:
      "error: |(W - S - L) diag(d)|² / |W diag(d)|², as stored. Error of the outputs: the same on the calibration inputs with their correlations, tr(E H E') / tr(W H W').",
    charts,
    head: ["layer", "error", "error of the outputs"],
    rows: layers.map((l) => [l.name, l.error, l.inputError]),
  };
}

/** Shares of the singular values that the table names. */
const NAMED_STEPS = [0.125, 0.25, 0.5, 0.75, 1];

function spectra({ layers }: Insight): Section | null {
  const of = (l: Insight["layers"][number]): Spectrum | null => l.scaled ?? l.plain;
  const known = layers.flatMap((l) => {
    const spectrum = of(l), [, block, layer] = /^block\.(\d+)\.(.+)$/.exec(l.name) ?? [];
    return spectrum && layer ? [{ name: l.name, block: Number(block), layer, spectrum }] : [];
  });
  if (known.length === 0) return null;
  const scaled = layers.some((l) => l.scaled);
  const charts = layerNames(known).map((layer) => {
    const points = known.filter((k) => k.layer === layer).flatMap(({ block, spectrum }) =>
      spectrum.quantiles.map((value, i) => ({ block, at: i / SPECTRUM_STEPS, value }))
    );
    return chart(`Singular values of ${layer}, a line for each block`, {
      width: 280,
      height: 200,
      marginLeft: 45,
      title: layer,
      x: { label: "share of singular values", ticks: 5, percent: true },
      y: {
        type: "log",
        label: "σ / σ₁",
        domain: [1e-3, 1],
        clamp: true,
        grid: true,
        tickFormat: "~g",
        ticks: 4,
      },
      color: BLOCK_COLORS,
      marks: [
        lineY(points, {
          x: "at",
          y: "value",
          z: "block",
          stroke: "block",
          strokeWidth: 1,
          title: (p) => `block ${p.block}`,
        }),
      ],
    });
  });
  return {
    title: "Singular values",
    about: `Of ${
      scaled ? "W diag(d), which methods work on" : "W"
    }: falling from the largest, from the first block (yellow) to the last (blue). Where lines fall fast, L can be narrow. Effective rank: exp of the entropy of the energy (σ²).`,
    charts,
    head: [
      "layer",
      "σ₁",
      ...NAMED_STEPS.map((s) => `at ${100 * s} %`),
      "effective rank",
      "energy of L's rank",
      "method",
    ],
    rows: known.map(({ name, spectrum: s }) => [
      name,
      s.largest,
      ...NAMED_STEPS.map((step) => s.quantiles[step * SPECTRUM_STEPS]),
      s.effectiveRank,
      s.energyOfRank,
      s.method,
    ]),
  };
}

/** Of all layers in windows together. */
function occupancy({ layers }: Insight): Section | null {
  const known = layers.flatMap((l) => l.windows ? [l.windows] : []);
  if (known.length === 0) return null;
  const kinds = new Map<string, number[]>();
  for (const { view, capacity, windows } of known.flatMap((w) => w.kinds)) {
    const sums = kinds.get(`${view}, ${capacity} places`) ?? windows.map(() => 0);
    kinds.set(`${view}, ${capacity} places`, sums.map((n, i) => n + windows[i]));
  }
  const bars = [...kinds].sort().flatMap(([kind, counts]) => {
    const all = counts.reduce((a, b) => a + b, 0);
    return counts.map((windows, filled) => ({
      kind: `view ${kind}`,
      filled,
      windows,
      share: 100 * windows / all,
    }));
  });
  const blocks = Array.from({ length: FILL_BINS }, (_, i) => known.reduce((sum, w) => sum + w.blocks[i], 0));
  const rowBlocks = blocks.reduce((a, b) => a + b, 0);
  const fill = blocks.map((n, i) => ({
    from: 100 * i / FILL_BINS,
    to: 100 * (i + 1) / FILL_BINS,
    share: 100 * n / rowBlocks,
  }));
  return {
    title: "Window occupancy",
    about:
      "How many of a window's places (of one row) hold a value other than 0, by kind of window; and rows' activation blocks by the share of their places that is filled. A free place costs as much as a filled one.",
    charts: [
      chart("Windows by filled places, for each kind of window", {
        width: WIDTH,
        height: 220,
        fx: { label: null },
        x: { label: "places filled", tickFormat: "d" },
        y: { label: "% of windows", grid: true },
        marks: [barY(bars, { fx: "kind", x: "filled", y: "share", fill: "#4269d0" })],
      }),
      chart("Rows' blocks by the share of filled places", {
        width: WIDTH,
        height: 200,
        x: { label: "% of places filled", domain: [0, 100] },
        y: { label: "% of rows' blocks", grid: true },
        marks: [rect(fill, { x1: "from", x2: "to", y1: () => 0, y2: "share", fill: "#4269d0", inset: 0.5 })],
      }),
    ],
    head: ["windows", "places filled", "count", "%"],
    rows: bars.map(({ kind, filled, windows, share }) => [kind, filled, windows, share]),
  };
}

function inputs({ inputs }: Insight): Section | null {
  if (inputs.length === 0) return null;
  const { from, to, count } = SCALE_BINS, step = (to - from) / count;
  const cells = inputs.flatMap(({ name, histogram, columns }) => {
    const [, block, input] = /^block\.(\d+)\.(.+)$/.exec(name) ?? ["", "0", name];
    return histogram.flatMap((n, i) =>
      n === 0 ? [] : [{ block: Number(block), input, low: from + i * step, share: 100 * n / columns }]
    );
  });
  return {
    title: "Scales of activations",
    about:
      "Columns of each layer input by their root mean square over the median one, as a power of 2: a long right tail means outlier columns, which OATS and OWL scale by.",
    charts: [chart("Share of columns by scale, for each block and input", {
      width: WIDTH,
      height: Math.min(600, 90 + 12 * (1 + Math.max(...cells.map((c) => c.block)))),
      marginTop: 40,
      fx: { label: null, domain: [...new Set(cells.map((c) => c.input))] },
      x: { label: "log₂ (d / median)", ticks: 5 },
      y: { ...blockAxis(cells), reverse: true },
      color: {
        type: "quantize",
        scheme: "YlGnBu",
        n: 6,
        label: "% of columns",
        legend: true,
        tickFormat: ".2~g",
      },
      marks: [
        rect(cells, {
          fx: "input",
          x1: "low",
          x2: (c) => c.low + step,
          y1: (c) => c.block - 0.5,
          y2: (c) => c.block + 0.5,
          fill: "share",
          title: (c) => `block ${c.block}, ${c.input}: ${c.share.toPrecision(2)} % of columns`,
        }),
      ],
    })],
    head: [
      "input",
      "columns",
      "always 0",
      "root mean square",
      "median column",
      "above 6 x",
      "largest (column x median)",
    ],
    rows: inputs.map((i) => [
      i.name,
      i.columns,
      i.dead,
      i.rms,
      i.median,
      i.outlierCount,
      i.outlierColumns.map(({ column, ratio }) => `${column} x ${ratio.toFixed(1)}`).join(", "),
    ]),
  };
}
