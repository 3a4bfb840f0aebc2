/** Minimal local stand-in for `@std/testing/bdd` (same names, same behaviour for what the tests use). */
type Fn = () => void | Promise<void>;
interface Suite {
  name: string;
  beforeAll: Fn[];
  afterAll: Fn[];
  beforeEach: Fn[];
  afterEach: Fn[];
  cases: { name: string; fn: Fn; ignore: boolean }[];
  children: Suite[];
}
const stack: Suite[] = [];
const suite = (name: string): Suite => ({
  name,
  beforeAll: [],
  afterAll: [],
  beforeEach: [],
  afterEach: [],
  cases: [],
  children: [],
});
const current = (): Suite => {
  const s = stack.at(-1);
  if (!s) throw new TypeError("Hooks of @std/testing/bdd stand inside describe()");
  return s;
};

async function run(s: Suite, t: Deno.TestContext, outer: { before: Fn[]; after: Fn[] }): Promise<void> {
  const before = [...outer.before, ...s.beforeEach];
  const after = [...s.afterEach, ...outer.after];
  for (const f of s.beforeAll) await f();
  try {
    for (const c of s.cases) {
      await t.step({
        name: c.name,
        ignore: c.ignore,
        sanitizeOps: false,
        sanitizeResources: false,
        fn: async () => {
          for (const f of before) await f();
          try {
            await c.fn();
          } finally {
            for (const f of after) await f();
          }
        },
      });
    }
    for (const child of s.children) {
      await t.step({
        name: child.name,
        sanitizeOps: false,
        sanitizeResources: false,
        fn: (t) => run(child, t, { before, after }),
      });
    }
  } finally {
    for (const f of s.afterAll) await f();
  }
}

/** Groups tests; nested groups become steps. */
export function describe(name: string, fn: () => void): void {
  const s = suite(name);
  const parent = stack.at(-1);
  stack.push(s);
  try {
    fn();
  } finally {
    stack.pop();
  }
  if (parent) parent.children.push(s);
  else Deno.test(name, (t) => run(s, t, { before: [], after: [] }));
}
/** One test: a step inside describe(), a test of its own outside. */
export function it(name: string, fn: Fn): void {
  const s = stack.at(-1);
  if (s) s.cases.push({ name, fn, ignore: false });
  else Deno.test(name, fn);
}
it.skip = (name: string, fn: Fn = () => {}): void => {
  const s = stack.at(-1);
  if (s) s.cases.push({ name, fn, ignore: true });
  else Deno.test({ name, fn, ignore: true });
};
export const test: typeof it = it;
export function beforeAll(fn: Fn): void {
  current().beforeAll.push(fn);
}
export function afterAll(fn: Fn): void {
  current().afterAll.push(fn);
}
export function beforeEach(fn: Fn): void {
  current().beforeEach.push(fn);
}
export function afterEach(fn: Fn): void {
  current().afterEach.push(fn);
}
export { afterAll as after, beforeAll as before };
