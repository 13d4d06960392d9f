// The TypeScript SDK, version 2; the mode of its version negotiation is the second argument.
import { readFileSync } from "node:fs";

import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

import { answer, serve, server } from "./lines.mjs";

const client = new Client(
  { name: "sdk-v2", version: "1" },
  { capabilities: { elicitation: { form: {} } }, versionNegotiation: { mode: process.argv[3] } },
);
client.setRequestHandler("elicitation/create", answer);
await client.connect(new StdioClientTransport(server));
const found = readFileSync("node_modules/@modelcontextprotocol/client/package.json");
await serve(client, JSON.parse(found).version);
