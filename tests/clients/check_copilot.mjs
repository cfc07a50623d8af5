// GitHub's Copilot language server, as editors start it, against a running weir that gives out
// tokens: check_copilot.mjs BASE_URL. It is told of weir's address the way a codespace tells it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { base, find, run } from "./checks.mjs";
import { Connection } from "./lsp.mjs";

const PACKAGE = "@github/copilot-language-server-linux-x64/package.json";
const SERVER = join(dirname(find(PACKAGE)), "copilot-language-server");
const home = mkdtempSync(join(tmpdir(), "weir-copilot-"));

const env = {
  PATH: process.env.PATH,
  HOME: home,
  CODESPACES: "true",
  GITHUB_TOKEN: "ghu_weir",
  GITHUB_SERVER_URL: base,
  GITHUB_API_URL: base,
};
const child = spawn(SERVER, ["--stdio"], { env, stdio: ["pipe", "pipe", "ignore"] });
const left = once(child, "exit");
const server = new Connection(child.stdin);
child.stdout.on("data", (bytes) => server.told(bytes));

// What it says of its requests.
const asked = [];
server.heard = (method, params) => {
  if (method === "workspace/configuration") return params.items.map(() => null);
  const url = method === "window/logMessage" && /Request .* at <(\S+)> (.*)$/.exec(params.message);
  if (url) asked.push({ url: url[1], outcome: url[2] });
  return null;
};

let opened = 0;
// What is suggested at the end of `text`, in a document of its own.
async function suggested(languageId, extension, text) {
  const uri = `file://${home}/${++opened}.${extension}`;
  server.open(uri, languageId, text);
  const lines = text.split("\n");
  const position = { line: lines.length - 1, character: lines.at(-1).length };
  const { items } = await server.call("textDocument/inlineCompletion", {
    textDocument: { uri, version: 1 },
    position,
    context: { triggerKind: 1 },
    formattingOptions: { tabSize: 4, insertSpaces: true },
  });
  return items;
}

async function it_begins() {
  const { capabilities, serverInfo } = await server.call("initialize", {
    processId: process.pid,
    workspaceFolders: [{ uri: `file://${home}`, name: "home" }],
    capabilities: { textDocument: { inlineCompletion: {} }, workspace: { workspaceFolders: true } },
    initializationOptions: {
      editorInfo: { name: "weir's checks", version: "1" },
      editorPluginInfo: { name: "weir's checks", version: "1" },
    },
  });
  assert.ok(capabilities.inlineCompletionProvider, JSON.stringify(serverInfo));
  server.send({ method: "initialized", params: {} });
  // Whatever it wants of others goes to a proxy that is not there.
  const http = { proxy: "http://127.0.0.1:1", noProxy: ["127.0.0.1"] };
  const settings = { telemetry: { telemetryLevel: "off" }, http };
  server.send({ method: "workspace/didChangeConfiguration", params: { settings } });
}

async function it_signs_in_with_weir_s_token() {
  const { status, user } = await server.call("checkStatus", {});
  assert.deepEqual({ status, user }, { status: "OK", user: "<codespaces-user>" });
}

async function it_suggests_what_weir_says() {
  const [item] = await suggested("python", "py", "def add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return ");
  assert.ok(item.insertText.startsWith("    return ") && item.insertText.length > 11, item.insertText);
  const { url, outcome } = asked.at(-1);
  assert.match(url, new RegExp(`^${base}/v1/engines/[^/]+/completions$`));
  assert.match(outcome, /^finished with 200 status/);
}

async function it_does_so_in_other_languages() {
  const before = asked.length;
  await suggested("rust", "rs", "fn add(a: i32, b: i32) -> i32 {\n    ");
  await suggested("typescript", "ts", "export function add(a: number, b: number) {\n  return ");
  const outcomes = asked.slice(before).map(({ outcome }) => outcome.slice(0, 24));
  assert.deepEqual(outcomes, Array(2).fill("finished with 200 status"));
}

async function it_ends_well() {
  assert.equal(await server.call("shutdown"), null);
  server.send({ method: "exit" });
  assert.deepEqual(await left, [0, null]);
}

try {
  await run([
    it_begins,
    it_signs_in_with_weir_s_token,
    it_suggests_what_weir_says,
    it_does_so_in_other_languages,
    it_ends_well,
  ]);
} finally {
  child.kill("SIGKILL");
  rmSync(home, { recursive: true, force: true });
}
