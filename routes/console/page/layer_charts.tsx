/** What compression did to each layer and block: from the artifact's header, and from its insight where it has one. */
import { Chart, type Series } from "./chart.tsx";
import { digits, percent } from "./format.ts";
import { Failure } from "./parts.tsx";
import { Recovery } from "./recovery.tsx";
import { useResource } from "./resource.ts";
import type { ArtifactHeader, Insight, LayerReport, Model } from "./types.ts";

export function LayerCharts({ model }: { readonly model: Model }) {
  const file = (name: string) => `/v1/models/${encodeURIComponent(model.id)}/files/${name}`;
  const header = useResource<ArtifactHeader>(file("oatmill.json"));
  const hasInsight = model.files.some(({ name }) => name === "insight.json");
  const insight = useResource<Insight>(hasInsight ? file("insight.json") : null);
  const layers = header.data?.layers ?? [];
  return (
    <>
      {header.data?.recovery && <Recovery recovery={header.data.recovery} />}
      <section aria-labelledby="layers">
        <h2 id="layers">Layers</h2>
        <Failure error={header.error ?? insight.error} />
        {header.data && layers.length === 0 && <p>No layer of this model was compressed.</p>}
        {layers.length > 0 && (
          <div class="charts">
            {insight.data && <OutlierChart insight={insight.data} />}
            <RateChart layers={layers} />
            <ByLayer
              layers={layers}
              title="Rank of L"
              about="Columns of U; 0: no low-rank part"
              value={(l) => l.rank}
            />
            <ByLayer
              layers={layers}
              title="Kept share of S"
              about="Of all weights of the layer"
              value={(l) => l.kept}
              format={percent}
            />
            <ByLayer
              layers={layers}
              title="Error of layers"
              about="|(W − S − L) diag(d)|² / |W diag(d)|², as stored"
              value={(l) => l.error}
              format={percent}
            />
            {insight.data && <OutputErrorChart insight={insight.data} />}
          </div>
        )}
      </section>
    </>
  );
}

interface Named {
  readonly name: string;
}
interface Place {
  readonly block: number;
  readonly kind: string;
}
/** `block.3.q`, of experts `block.3.experts.5.up`; a graph's layers have names of their own and no blocks. */
function placeOf({ name }: Named): Place | null {
  const match = /^block\.(\d+)\.(?:.*\.)?([^.]+)$/.exec(name);
  return match && { block: Number(match[1]), kind: match[2] };
}

interface Grid {
  readonly x: { readonly label: string; readonly values: readonly number[] };
  readonly series: readonly Series[];
}
/** A series for each kind of layer over the blocks; experts of a block are one, their mean. */
function byKind<T extends Named>(layers: readonly T[], value: (layer: T) => number | null): Grid {
  const places = layers.map(placeOf);
  if (places.some((p) => p === null)) {
    return {
      x: { label: "Layer", values: layers.map((_, i) => i) },
      series: [{ label: "Layer", values: layers.map(value) }],
    };
  }
  const blocks = [...new Set(places.map((p) => p!.block))].sort((a, b) => a - b);
  const kinds = [...new Set(places.map((p) => p!.kind))];
  const series = kinds.map((kind) => ({
    label: kind,
    values: blocks.map((block) =>
      mean(layers.filter((_, i) => places[i]!.block === block && places[i]!.kind === kind).map(value))
    ),
  }));
  return { x: { label: "Block", values: blocks }, series };
}

function mean(values: readonly (number | null)[]): number | null {
  const known = values.filter((v) => v !== null);
  return known.length === 0 ? null : known.reduce((a, b) => a + b, 0) / known.length;
}

function ByLayer({ layers, title, about, value, format = digits }: {
  readonly layers: readonly LayerReport[];
  readonly title: string;
  readonly about: string;
  readonly value: (layer: LayerReport) => number;
  readonly format?: (v: number) => string;
}) {
  return <Chart title={title} about={about} {...byKind(layers, value)} wholeX format={format} />;
}

/** How the rate was spread: what the allocation decided. */
function RateChart({ layers }: { readonly layers: readonly LayerReport[] }) {
  const places = layers.map(placeOf);
  if (places.some((p) => p === null)) return null;
  const blocks = [...new Set(places.map((p) => p!.block))].sort((a, b) => a - b);
  const values = blocks.map((block) => {
    const own = layers.filter((_, i) => places[i]!.block === block);
    const size = ({ shape }: LayerReport) => shape[0] * shape[1];
    const all = own.reduce((sum, l) => sum + size(l), 0);
    return all === 0 ? null : own.reduce((sum, l) => sum + l.rate * size(l), 0) / all;
  });
  return (
    <Chart
      title="Rate of blocks"
      about="Share of each block’s parameters removed"
      kind="bars"
      wholeX
      x={{ label: "Block", values: blocks }}
      series={[{ label: "rate", values }]}
      format={percent}
    />
  );
}

/** OWL's layerwise outlier distribution (LOD). */
function OutlierChart({ insight }: { readonly insight: Insight }) {
  const series = insight.multiples.map((m, i) => ({
    label: `M = ${m}`,
    values: insight.blocks.map(({ outliers }) => outliers?.[i] ?? null),
  }));
  if (series.every(({ values }) => values.every((v) => v === null))) return null;
  return (
    <Chart
      title="Outliers of blocks (OWL)"
      about="Share of scores |W| d above M times their mean"
      logarithmic
      wholeX
      x={{ label: "Block", values: insight.blocks.map((_, i) => i) }}
      series={series}
      format={percent}
    />
  );
}

function OutputErrorChart({ insight }: { readonly insight: Insight }) {
  const known = insight.layers.filter(({ inputError }) => inputError !== null);
  if (known.length === 0) return null;
  return (
    <Chart
      title="Error of layers’ outputs"
      about="Share of the outputs’ squares lost on calibration data"
      {...byKind(known, (l) => l.inputError)}
      wholeX
      format={percent}
    />
  );
}
