/** A short name for a text: the first 64 bits of its SHA-256, in hex. */
export async function hashText(text: string): Promise<string> {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return new Uint8Array(hash).subarray(0, 8).toHex();
}
