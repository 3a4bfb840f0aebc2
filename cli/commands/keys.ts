/** Options of `keys`. */
import { type Command, Option } from "commander";
import { SCOPES } from "../../routes/scopes.ts";
import { listOf } from "./arguments.ts";
import { data, json } from "./options.ts";

export function addKeys(program: Command): void {
  const keys = program.command("keys").description("API keys of a server, also while it runs");
  keys.command("add")
    .description("Make an API key and show it, once: only its hash is stored")
    .argument("<name>", "whose key it is")
    .addOption(
      new Option("--scopes <list>", `what it may do, of ${SCOPES.join(", ")} (admin: everything)`)
        .default(["read", "infer"]).argParser(listOf(SCOPES)),
    )
    .addOption(data())
    .addOption(json())
    .action(async (name, options) => await (await import("../keys.ts")).addKey(name, options));
  keys.command("list")
    .description("List the API keys of the data folder")
    .addOption(data())
    .addOption(json())
    .action(async (options) => await (await import("../keys.ts")).listKeys(options));
  keys.command("revoke")
    .description("Delete an API key: its next request is refused")
    .argument("<id>", "as `keys list` shows it")
    .addOption(data())
    .addOption(json())
    .action(async (id, options) => await (await import("../keys.ts")).revokeKey(id, options));
}
