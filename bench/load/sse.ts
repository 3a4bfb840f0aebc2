/** Server-sent events, read as the HTML standard says (9.2.6), cheaply: one pass over each piece as it comes. */
const LF = 10, CR = 13;

export class SseParser {
  readonly #decoder = new TextDecoder(); // holds back half characters, drops a byte order mark
  /** Of the line that has begun. */
  #line = "";
  #data: string | null = null;
  #afterCr = false;

  /**
   * @param bytes the next piece of the stream, cut anywhere
   * @param onData called with each whole event's data
   */
  push(bytes: Uint8Array, onData: (data: string) => void): void {
    const text = this.#decoder.decode(bytes, { stream: true });
    let start = 0;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      if (code === LF && this.#afterCr) start = i + 1; // CR LF is one line's end
      else if (code === LF || code === CR) {
        this.#endLine(this.#line + text.slice(start, i), onData);
        this.#line = "";
        start = i + 1;
      }
      this.#afterCr = code === CR;
    }
    this.#line += text.slice(start);
  }

  #endLine(line: string, onData: (data: string) => void): void {
    if (line === "") {
      if (this.#data !== null) onData(this.#data);
      this.#data = null;
    } else if (line === "data" || line.startsWith("data:")) {
      const value = line.slice(line.charCodeAt(5) === 32 ? 6 : 5);
      this.#data = this.#data === null ? value : `${this.#data}\n${value}`;
    } // other fields and comments (keep-alives) say nothing of tokens
  }
}
