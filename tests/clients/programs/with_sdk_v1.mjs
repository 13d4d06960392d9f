// The TypeScript SDK, version 1.
import { readFileSync } from "node:fs";

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

import { answer, serve, server } from "./lines.mjs";

const client = new Client({ name: "sdk-v1", version: "1" }, { capabilities: { elicitation: {} } });
client.setRequestHandler(ElicitRequestSchema, answer);
await client.connect(new StdioClientTransport(server));
const found = readFileSync("node_modules/@modelcontextprotocol/sdk/package.json");
await serve(client, JSON.parse(found).version);
