/** POST /v1/responses: OpenAI's newer endpoint: text in, text and calls of tools out. Nothing is stored. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import { needTokenizer } from "../../engine/open_model.ts";
import { answerRoute } from "../answer.ts";
import { Generation } from "../generation.ts";
import { resource, type Services } from "../services.ts";
import { streamResponse } from "./events.ts";
import { checkBody, readChoice, requestSchema } from "./request.ts";
import { GrowingResponse, type ResponseBody, responseSchema } from "./response.ts";
import { callsOf } from "../tools.ts";
import { wholeAnswer } from "../whole_answer.ts";
import { toolUseOf } from "./tools.ts";

const route = answerRoute({
  path: "/v1/responses",
  summary: "Answer a text or a conversation",
  body: requestSchema,
  answer: responseSchema,
  description:
    "The response; with `stream`, server-sent events from response.created to response.completed, " +
    "response.incomplete or response.failed",
});

export function responses(services: Services): OpenAPIHono {
  const app = resource();
  app.openapi(route, async (c) => {
    const body = c.req.valid("json");
    checkBody(body);
    const use = toolUseOf(body);
    const generation = await Generation.start(
      async (model, signal) => [await readChoice(body, use, { model, signal })],
      {
        operation: "chat",
        model: body.model,
        request: c.req.raw,
        services,
      },
    );
    const { model } = generation, calls = use && callsOf(use, model);
    const response = new GrowingResponse(body, needTokenizer(model), calls);
    const answer = body.stream
      ? streamResponse(response, generation)
      : wholeAnswer(c, whole(response, generation), { leave: () => generation.leave(), ...services.limits });
    // deno-lint-ignore no-explicit-any -- the route's type knows no raw Response
    return await answer as any;
  });
  return app;
}

async function whole(response: GrowingResponse, generation: Generation): Promise<ResponseBody> {
  for await (const { event } of generation.events()) {
    if (event.type === "prompt") response.open();
    else response.add(event);
  }
  return response.ended(generation.usage());
}
