/**
 * Line ends as models know them: "\r\n" becomes "\n", as every reader in text mode does. WikiText-2 is often stored with
 * "\r\n"; read as it stands it costs 1 % more tokens, and its perplexity compares with nobody's.
 */
export const unixLines = (text: string): string => text.replaceAll("\r\n", "\n");
