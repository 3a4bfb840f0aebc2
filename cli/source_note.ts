/**
 * Beside an artifact made here: where its source lies, for `bench engine --peer` and `inspect --insight`. Never handed out
 * or read by a server.
 */
export const SOURCE_NOTE = "source.txt";
