/** Which scope of an API key each route needs: one table, and for what is not in it the method decides. */

/**
 * - `read`: what there is: models, their files, jobs, metrics
 * - `infer`: run models
 * - `admin`: everything, also adding and deleting models
 */
export const SCOPES = ["read", "infer", "admin"] as const;
export type Scope = typeof SCOPES[number];

/** By method and path; null: open to everybody. The documents describe the program, not what is on this server. */
const ROUTES: Readonly<Record<string, Scope | null>> = {
  "GET /healthz": null,
  "GET /readyz": null,
  "GET /": null,
  "GET /console/console.css": null,
  "GET /console/console.js": null,
  "GET /console/icon.svg": null,
  "GET /docs": null,
  "GET /openapi.json": null,
  "POST /v1/chat/completions": "infer",
  "POST /v1/classify": "infer",
  "POST /v1/completions": "infer",
  "POST /v1/embeddings": "infer",
  "POST /v1/responses": "infer",
  "POST /tokenize": "infer",
  "POST /detokenize": "infer",
};

/** What is not in the table: reading needs `read`, everything else `admin`. */
export function scopeOf(method: string, path: string): Scope | null {
  const verb = method === "HEAD" ? "GET" : method;
  const listed = ROUTES[`${verb} ${path}`];
  return listed !== undefined ? listed : verb === "GET" ? "read" : "admin";
}

export const mayUse = (granted: readonly string[], needed: Scope): boolean =>
  granted.includes(needed) || granted.includes("admin");
