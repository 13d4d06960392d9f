// As lines.py: what a client's program and the test say to each other.
import { createInterface } from "node:readline";

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export const server = JSON.parse(process.argv[2]);
const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");

/** The form's answer of the person, who reads the question. */
export async function answer({ params }) {
  process.stdout.write(`${params.message}\nType yes to approve:\n`);
  const { value } = await input.next();
  return value === "yes" ? { action: "accept", content: { approve: true } } : { action: "decline" };
}

/** Make the calls that come, and tell what a model would read of each. */
export async function serve(client, version) {
  const { tools } = await client.listTools();
  say({ ready: { version, tools: tools.map((tool) => tool.name) } });
  for (let line = await input.next(); !line.done; line = await input.next()) {
    const { tool, arguments: given } = JSON.parse(line.value);
    const result = await client.callTool({ name: tool, arguments: given });
    say({ result: JSON.parse(result.content[0].text) });
  }
  await client.close();
}
