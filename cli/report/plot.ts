/** The only file that knows Observable Plot: charts as SVG text, drawn here, so that a report needs no script. */
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";

export type { PlotOptions } from "@observablehq/plot";
export {
  barX,
  barY,
  cell,
  dot,
  gridX,
  gridY,
  line,
  lineY,
  link,
  rect,
  ruleX,
  ruleY,
  text,
} from "@observablehq/plot";

const { document } = parseHTML("<!doctype html><html><body></body></html>");

/**
 * @param label what the chart shows, for those who do not see it
 * @returns markup; names that stand in the data are escaped in it
 */
export function chart(label: string, options: Plot.PlotOptions): string {
  const plot = Plot.plot({
    document: document as unknown as Document,
    style: { background: "none" },
    ...options,
  });
  for (const svg of plot.tagName.toLowerCase() === "svg" ? [plot] : plot.querySelectorAll("svg")) {
    if (!svg.hasAttribute("viewBox")) continue; // the squares beside a legend's names
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  }
  return plot.outerHTML;
}
