// tabby-agent, as Tabby's extensions start it, against a running weir: check_tabby.mjs BASE_URL. It
// speaks JSON by lines, and the language server protocol with --lsp.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { FREED_WITHIN_MS, base, find, metrics, run } from "./checks.mjs";
import { Connection, Pending } from "./lsp.mjs";

const AGENT = join(dirname(find("tabby-agent")), "cli.js");
const GUARD = fileURLToPath(new URL("./stays_home.cjs", import.meta.url));
const PATIENCE_MS = 30000;
// An answer may be there before it can be broken off; then another is asked for.
const ATTEMPTS_MAX = 20;

const [before, after] = ["def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"];
const home = mkdtempSync(join(tmpdir(), "weir-tabby-"));
const folder = join(home, ".tabby-client", "agent");
mkdirSync(folder, { recursive: true });
// By itself the agent waits for a pause in typing that it estimates, and nobody types here.
const settings =
  `[server]\nendpoint = "${base}"\n[completion.debounce]\nmode = "fixed"\ninterval = 1\n`;
const silent = "[anonymousUsageTracking]\ndisable = true\n";
const configure = (text) => writeFileSync(join(folder, "config.toml"), text);

const pause = (ms) => new Promise((resume) => setTimeout(resume, ms));

async function comes_true(what, within, holds) {
  const deadline = performance.now() + within;
  for (let found = await holds(); !found; found = await holds()) {
    assert.ok(performance.now() < deadline, what);
    await pause(2);
  }
}

// The agent's process; `told` gets what it writes, as text.
class Child {
  complaints = "";

  constructor(flags, told) {
    const env = { PATH: process.env.PATH, HOME: home };
    this.process = spawn(process.execPath, ["--require", GUARD, AGENT, ...flags], { env });
    this.process.stdout.setEncoding("utf8").on("data", told);
    this.process.stderr.setEncoding("utf8").on("data", (text) => (this.complaints += text));
    this.left = once(this.process, "exit");
  }
}

// [id, {func, args}] out, [id, result] back, and 0 for what it tells unasked.
class Lines {
  pending = new Pending();
  statuses = [];
  rest = "";

  constructor() {
    this.child = new Child([], (text) => this.told(text));
  }

  told(text) {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop();
    for (const [id, value] of lines.map((line) => JSON.parse(line))) {
      if (id !== 0) this.pending.answered(id, value);
      else if (value.event === "statusChanged") this.statuses.push(value.status);
    }
  }

  call(func, ...args) {
    const { stdin } = this.child.process;
    return this.pending.ask((id) => stdin.write(JSON.stringify([id, { func, args }]) + "\n"));
  }

  // `signal` makes it one that can be cancelled.
  complete(prefix, suffix, more) {
    const text = prefix + suffix;
    const request = { filepath: "/src/add.py", language: "python", text, position: prefix.length };
    return this.call("provideCompletions", { ...request, ...more }, { signal: true });
  }
}

// The same agent as a language server.
class LanguageServer extends Connection {
  constructor() {
    const child = new Child(["--lsp", "--stdio"], (text) => this.told(text));
    super(child.process.stdin);
    this.child = child;
  }

  complete(uri, text) {
    const lines = text.split("\n");
    const position = { line: lines.length - 1, character: lines.at(-1).length };
    return this.call("textDocument/completion", { textDocument: { uri }, position });
  }
}

// It goes on and on, behind many numbers that no answer has been given to yet.
let asked = 0;
function endless() {
  asked += 1;
  const numbers = Array.from({ length: 120 }, (_, at) => (at * 7919 + asked * 104729) % 9973);
  return `x = [${numbers.join(", ")}]\ny = [${"0, ".repeat(80)}`;
}

// Asks with `start` until an answer is under way, breaks it off, and sees its slot free.
async function broken_off(start, breakOff) {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    const cancelled = (await metrics()).weir_cancelled_total;
    let is_there = false;
    const answer = start(endless());
    const came = () => (is_there = true);
    answer.then(came, came);
    await comes_true("nothing began", PATIENCE_MS, async () => {
      return is_there || (await metrics()).weir_slots_used > 0;
    });
    if (is_there) continue;
    await breakOff(answer);
    const given = await answer;
    await comes_true("the slot is not free", FREED_WITHIN_MS, async () => {
      return (await metrics()).weir_slots_used === 0;
    });
    if ((await metrics()).weir_cancelled_total > cancelled) return given;
  }
  assert.fail(`all ${ATTEMPTS_MAX} answers were there too soon`);
}

// How many suggestions of weir's own to Python have come so far.
async function suggestions(event) {
  const text = await (await fetch(`${base}/metrics`)).text();
  const labels = `event="${event}",language="python",route="local"`;
  const series = new RegExp(`^weir_suggestions_total\\{${labels}\\} (\\d+)$`, "m");
  return Number(series.exec(text)?.[1] ?? 0);
}

const stored = () => {
  const file = JSON.parse(readFileSync(join(folder, "data.json"), "utf8"));
  return file.serverConfig?.[base];
};

configure(settings + silent);
let agent = new Lines();
let completion;

async function it_is_ready() {
  const session = { client: "weir's checks", ide: { name: "none", version: "1" } };
  assert.equal(await agent.call("initialize", { clientProperties: { session } }), true);
  assert.equal(await agent.call("getStatus"), "ready");
  assert.deepEqual(agent.statuses, ["ready"]);
  assert.deepEqual(await agent.call("getIssues"), []);
}

async function health_is_what_it_reads() {
  const health = await agent.call("getServerHealthState");
  assert.ok(health.model && health.device && health.version.git_describe);
  assert.deepEqual(health, await (await fetch(`${base}/v1/health`)).json());
}

async function it_learns_to_keep_telemetry_to_itself() {
  await comes_true("no setting was stored", PATIENCE_MS, () => stored() !== undefined);
  assert.deepEqual(stored(), { anonymousUsageTracking: { disable: true } });
}

async function it_completes() {
  completion = await agent.complete(before, after);
  assert.match(completion.id, /^cmpl-/);
  assert.equal(completion.choices.length, 1);
  const [{ text, replaceRange }] = completion.choices;
  assert.ok(text.length > 0);
  assert.equal(replaceRange.start, before.length);
}

async function it_completes_among_snippets() {
  const snippet = { offset: 0, text: "def sub(a, b):\n    return a - b\n", score: 0.5 };
  const declarations = [{ ...snippet, filepath: "/src/sub.py" }];
  const relevantSnippetsFromChangedFiles = [{ ...snippet, filepath: "/src/changed.py" }];
  const git = { root: "/src", remotes: [{ name: "origin", url: "git@example.org:ada/a.git" }] };
  const more = { declarations, relevantSnippetsFromChangedFiles, git, clipboard: "add(1, 2)" };
  const answer = await agent.complete("def sum(a, b):\n    return ", after, more);
  assert.match(answer.id, /^cmpl-/);
  assert.deepEqual(await agent.call("getIssues"), []);
}

async function counts(type, event, more) {
  const earlier = await suggestions(event);
  const said = { type, completion_id: completion.id, choice_index: 0, view_id: "v1", ...more };
  assert.equal(await agent.call("postEvent", said), true);
  assert.equal(await suggestions(event), earlier + 1);
}

const shown_is_counted = () => counts("view", "shown");
const accepted_is_counted = () => counts("select", "accepted", { select_kind: "line" });
const dismissed_is_counted = () => counts("dismiss", "dismissed", { elapsed: 900 });

async function a_cancelled_request_frees_its_slot() {
  const cancel = async ({ id }) => assert.equal(await agent.call("cancelRequest", id), true);
  assert.equal(await broken_off((prefix) => agent.complete(prefix, ""), cancel), null);
}

async function a_newer_request_cancels_the_one_before() {
  const newer = async () => {
    const answer = await agent.complete(`${before}a + `, after);
    assert.match(answer.id, /^cmpl-/);
  };
  assert.equal(await broken_off((prefix) => agent.complete(prefix, ""), newer), null);
  assert.equal(await agent.call("getStatus"), "ready");
}

async function ends(agent) {
  agent.child.process.kill("SIGTERM");
  assert.deepEqual(await agent.child.left, [0, null]);
  assert.equal(agent.child.complaints, "");
}

async function it_asked_nobody_else() {
  await ends(agent);
}

// Without a word in its configuration it does what weir told it before.
async function it_asks_nobody_else_by_default() {
  configure(settings);
  agent = new Lines();
  assert.equal(await agent.call("initialize", {}), true);
  assert.match((await agent.complete(before, after)).id, /^cmpl-/);
  assert.equal((await agent.call("getConfig")).anonymousUsageTracking.disable, true);
  assert.equal(await agent.call("finalize"), true);
  await ends(agent);
}

let server;

async function as_a_language_server_it_completes() {
  server = new LanguageServer();
  const clientInfo = { name: "weir's checks", version: "1" };
  const params = { processId: null, rootUri: null, clientInfo, capabilities: {} };
  const { capabilities } = await server.call("initialize", params);
  assert.ok(capabilities.completionProvider);
  server.send({ method: "initialized", params: {} });
  server.open("file:///src/add.py", "python", before + after);
  const { items } = await server.complete("file:///src/add.py", before);
  assert.equal(items.length, 1);
  assert.match(items[0].data.completionId, /^cmpl-/);
  assert.ok(items[0].textEdit.newText.length > 0);
  assert.deepEqual(items[0].textEdit.range.start, { line: 1, character: 11 });
}

async function as_a_language_server_a_newer_request_cancels_the_one_before() {
  let opened = 0;
  const start = (prefix) => {
    const uri = `file:///src/${++opened}.py`;
    server.open(uri, "python", prefix);
    return server.complete(uri, prefix);
  };
  server.open("file:///src/next.py", "python", `${before}b + ${after}`);
  const newer = () => server.complete("file:///src/next.py", `${before}b + `);
  assert.deepEqual(await broken_off(start, newer), { isIncomplete: true, items: [] });
}

async function as_a_language_server_it_ends_well() {
  assert.equal(await server.call("shutdown"), null);
  server.send({ method: "exit" });
  assert.deepEqual(await server.child.left, [0, null]);
  assert.equal(server.child.complaints, "");
}

try {
  await run([
    it_is_ready,
    health_is_what_it_reads,
    it_learns_to_keep_telemetry_to_itself,
    it_completes,
    it_completes_among_snippets,
    shown_is_counted,
    accepted_is_counted,
    dismissed_is_counted,
    a_cancelled_request_frees_its_slot,
    a_newer_request_cancels_the_one_before,
    it_asked_nobody_else,
    it_asks_nobody_else_by_default,
    as_a_language_server_it_completes,
    as_a_language_server_a_newer_request_cancels_the_one_before,
    as_a_language_server_it_ends_well,
  ]);
} finally {
  for (const one of [agent, server]) one?.child.process.kill("SIGKILL");
  rmSync(home, { recursive: true, force: true });
}
