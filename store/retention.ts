/** How long rows of what is over stay: finished jobs with their events, finished uploads. */
export interface Retention {
  /** Of each kind, the newest. */
  readonly most: number;
  /** Behind their end. */
  readonly ms: number;
}

/** A job's row and events take some 100 KB: 100 MB at most. */
export const RETENTION: Retention = { most: 1000, ms: 90 * 24 * 60 * 60_000 };
