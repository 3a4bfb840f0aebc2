/** The program's version: stands in the headers of artifacts, and in what unfinished compressions say of themselves. */
export const VERSION = "0.1.0";
