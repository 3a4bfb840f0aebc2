/** What the API answers, by the schemas of its routes: types alone, nothing of the server comes into the page. */
import type { z } from "@hono/zod-openapi";
import type { eventSchema, jobSchema } from "../../compressions.ts";
import type { partSchema, uploadSchema } from "../../uploads.ts";
import type { loadSchema, LoadSettings } from "../../loads/loads.ts";
import type { modelSchema } from "../../model_body.ts";
import type { speedSchema } from "../../speeds/speeds.ts";
import type { statusSchema } from "../../status.ts";

export type { ArtifactHeader, LayerReport } from "../../../models/formats/artifact_header.ts";
export type { Insight } from "../../../models/formats/insight_file.ts";

export type Model = z.infer<typeof modelSchema>;
export type Status = z.infer<typeof statusSchema>;
export type Job = z.infer<typeof jobSchema>;
export type JobEvent = z.infer<typeof eventSchema>;
export type Upload = z.infer<typeof uploadSchema>;
export type Part = z.infer<typeof partSchema>;
export type { LoadSettings };
export type Load = z.infer<typeof loadSchema>;
export type Speed = z.infer<typeof speedSchema>;
export type { LoadSummary } from "../../../bench/load/load.ts";
export interface List<T> {
  readonly data: readonly T[];
}
