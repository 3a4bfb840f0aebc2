/** Every block has the same rate. */
export function uniformRates(blocks: number, rate: number): number[] {
  return new Array<number>(blocks).fill(rate);
}
