/** Local stand-in for `@std/testing/time`: FakeTime over node:test's timers. */
import { mock } from "node:test";
export class FakeTime {
  constructor(start: number = Date.now()) {
    mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"], now: start });
  }
  tick(ms: number): void {
    mock.timers.tick(ms);
  }
  restore(): void {
    mock.timers.reset();
  }
  [Symbol.dispose](): void {
    this.restore();
  }
}
