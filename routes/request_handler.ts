/**
 * Answers requests: those for the first resources by an app of them alone, all others by the whole one, whose modules are
 * loaded when it is first asked.
 */
import { type AppOptions, createApp } from "./app.ts";
import { FIRST_RESOURCES } from "./first_resources.ts";
import type { Services } from "./services.ts";

export function requestHandler(
  services: Services,
  options: AppOptions = {},
): Deno.ServeHandler<Deno.NetAddr> {
  let app = createApp(services, FIRST_RESOURCES, options);
  // Not `app.routes`: limits stand there for paths of all resources.
  const first = new Set(
    app.openAPIRegistry.definitions.flatMap((one) => one.type === "route" ? [one.route.path] : []),
  );
  const whole = async () => {
    const { createWholeApp } = await import("./all_resources.ts");
    return app = createWholeApp(services, options);
  };
  let loading: ReturnType<typeof whole> | null = null;
  return async (request, info) => {
    if (!first.has(new URL(request.url).pathname)) await (loading ??= whole());
    return await app.fetch(request, info);
  };
}
