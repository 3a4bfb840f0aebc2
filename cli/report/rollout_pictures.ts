/** What a model looks at, as pictures inside a report: the image, and maps of its patches laid over it. */
import { html } from "hono/html";
import { pngOf } from "../../vision/encode.ts";
import { resample } from "../../vision/resample.ts";
import type { RgbImage } from "../../vision/rgb_image.ts";
import { type ArtifactRollout, PART_TITLES } from "../inspect_rollout.ts";
import type { Section } from "./page.ts";

/** Small images are enlarged to about so many pixels. */
const SIDE = 224;
/** From what is not looked at to what is looked at most. */
const COLORS = [[13, 8, 135], [156, 23, 158], [237, 121, 83], [240, 249, 33]] as const;
/** Share of the colour; the rest is the image in grey. */
const OPACITY = 0.65;

export async function rolloutSection(
  { image, levels, rows, columns, parts }: ArtifactRollout,
): Promise<Section> {
  const factor = Math.max(1, Math.round(SIDE / Math.max(levels.width, levels.height)));
  const large = resample(levels, levels.width * factor, levels.height * factor, "nearest");
  const pictures = [
    picture(image, await pngOf(large)),
    ...await Promise.all(
      parts.map(async ({ part, map }) =>
        picture(PART_TITLES[part], await pngOf(overlaid(large, heat(map, columns, rows))))
      ),
    ),
  ];
  return {
    title: "Attention rollout",
    about:
      "How much of each patch reaches the class token through all blocks (Abnar and Zuidema, 2020), with the " +
      "blocks' weights as they are, with their sparse part alone, and with their low-rank part alone: bright is most.",
    charts: [(await Promise.all(pictures)).join("\n")],
    head: ["weights", "label", "correlation with S + L"],
    rows: parts.map(({ part, label, correlation }) => [PART_TITLES[part], label, correlation]),
  };
}

const picture = async (title: string, png: Uint8Array): Promise<string> =>
  (await html`<figure><img alt="${title}" src="data:image/png;base64,${png.toBase64()}"><figcaption>${title}</figcaption></figure>`)
    .toString();

/** A colour for each patch, the least dark and the most bright. */
function heat(map: Float32Array, width: number, height: number): RgbImage {
  const least = map.reduce((a, b) => Math.min(a, b)), most = map.reduce((a, b) => Math.max(a, b));
  const data = new Uint8Array(3 * map.length);
  map.forEach((value, i) => {
    const at = most > least ? (value - least) / (most - least) * (COLORS.length - 1) : 0;
    const low = Math.min(COLORS.length - 2, Math.floor(at)), share = at - low;
    for (let c = 0; c < 3; c++) data[3 * i + c] = COLORS[low][c] * (1 - share) + COLORS[low + 1][c] * share;
  });
  return { width, height, data };
}

function overlaid(image: RgbImage, colors: RgbImage): RgbImage {
  const over = resample(colors, image.width, image.height, "bicubic");
  const data = image.data.map((_, i) => {
    const at = i - i % 3, [r, g, b] = image.data.subarray(at, at + 3);
    return (0.299 * r + 0.587 * g + 0.114 * b) * (1 - OPACITY) + over.data[i] * OPACITY;
  });
  return { ...image, data };
}
