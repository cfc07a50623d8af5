// Continue's own packages against a running weir: check_continue.mjs BASE_URL (as in http://127.0.0.1:8012).

import assert from "node:assert/strict";
import { base, breaksOff, client as load, run } from "./checks.mjs";

const { fetchwithRequestOptions, streamJSON, streamSse } = await load("@continuedev/fetch");
const { constructLlmApi } = await load("@continuedev/openai-adapters");

const model = "qwen2.5-coder-1.5b-base";
const prompt = "def add(a, b):\n    return ";
const suffix = "\n\nprint(add(1, 2))\n";
// What Continue sends with every completion: nine marks of the model's and three of its own.
const stop = ["<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"]
  .concat(["<|repo_name|>", "<|file_sep|>", "<|im_start|>", "<|im_end|>"])
  .concat(["/src/", "#- coding: utf-8", "```"]);
// Continue asks for this many and leaves when it has seen enough.
const MANY = 4096;
// It goes on and on, so that whoever leaves leaves something that runs.
const ENDLESS = "x = [" + "0, ".repeat(100);

// As Continue's core posts; `signal` is what it aborts.
function post(path, body, signal) {
  const headers = { "Content-Type": "application/json", "api-key": "" };
  const init = { method: "POST", headers, body: JSON.stringify(body), signal };
  return fetchwithRequestOptions(new URL(`${base}${path}`), init);
}

async function collect(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

const text = (chunks) => chunks.flatMap((chunk) => chunk.choices).map((one) => one.text).join("");

// The provider's completions are those of the plain route.
async function completes(provider, apiBase) {
  const api = constructLlmApi({ provider, apiBase, apiKey: "none" });
  const body = { model, prompt, stop, max_tokens: 12, temperature: 0 };
  const signal = new AbortController().signal;
  const chunks = await collect(api.completionStream({ ...body, stream: true }, signal));
  assert.ok(chunks.length > 2, "the stream came in one piece");
  const whole = await (await post("/v1/completions", body)).json();
  assert.equal(text(chunks), whole.choices[0].text);
  const alone = await api.completionNonStream({ ...body, stream: false }, signal);
  assert.equal(alone.choices[0].text, whole.choices[0].text);
}

const openai = () => completes("openai", `${base}/v1/`);
const vllm = () => completes("vllm", `${base}/v1/`);
const lmstudio = () => completes("lmstudio", `${base}/v1/`);
// Without a version in the path, and with one that the package adds.
const llama_cpp = () => completes("llama.cpp", `${base}/`);
const ollama = () => completes("ollama", `${base}/`);

async function mistral_at_a_cursor() {
  const api = constructLlmApi({ provider: "mistral", apiBase: `${base}/v1/`, apiKey: "none" });
  const body = { model, prompt, suffix, stop, max_tokens: 12, temperature: 0, stream: true };
  const chunks = await collect(api.fimStream(body, new AbortController().signal));
  const said = chunks.flatMap((chunk) => chunk.choices).map((one) => one.delta.content ?? "");
  const whole = await (await post("/v1/fim/completions", { ...body, stream: false })).json();
  assert.ok(said.length > 1 && whole.choices[0].message.content);
  assert.equal(said.join(""), whole.choices[0].message.content);
}

// As core/llm/llms/LlamaCpp.ts does, with the header that it sends where it has no key.
async function llama_cpp_natively() {
  const headers = { "Content-Type": "application/json", Authorization: "Bearer undefined" };
  const body = { prompt, stream: true, n_predict: 12, temperature: 0, stop };
  const init = { method: "POST", headers, body: JSON.stringify(body) };
  const response = await fetchwithRequestOptions(new URL(`${base}/completion`), init);
  const parts = await collect(streamSse(response));
  assert.ok(parts.length > 2 && parts.every((part) => typeof part.content === "string"));
}

async function adapter_that_aborts_frees_its_slot() {
  const api = constructLlmApi({ provider: "openai", apiBase: `${base}/v1/`, apiKey: "none" });
  const abort = new AbortController();
  const body = { model, prompt: ENDLESS, max_tokens: MANY, temperature: 0, stream: true };
  await breaksOff(api.completionStream(body, abort.signal), () => abort.abort());
}

async function events_as_its_parser_reads_them() {
  const body = { model, prompt, suffix, stop, max_tokens: 12, temperature: 0 };
  const chunks = await collect(streamSse(await post("/v1/completions", { ...body, stream: true })));
  const whole = await (await post("/v1/completions", body)).json();
  assert.equal(text(chunks), whole.choices[0].text);
}

async function fetch_that_aborts_frees_its_slot() {
  const abort = new AbortController();
  const body = { model, prompt: ENDLESS, max_tokens: MANY, temperature: 0, stream: true };
  const response = await post("/v1/completions", body, abort.signal);
  await breaksOff(streamSse(response), () => abort.abort());
}

// As core/llm/llms/Ollama.ts does: one look at the model, then streams without asking for them.
async function lines_as_its_parser_reads_them() {
  const shown = await (await post("/api/show", { name: model })).json();
  assert.ok(shown.template.includes(".Suffix"));
  const options = { num_predict: 12, temperature: 0, num_ctx: 8192, stop };
  const body = { model, prompt, suffix, options, keep_alive: 1800 };
  const parts = await collect(streamJSON(await post("/api/generate", body)));
  assert.ok(parts.length > 2 && parts.every((part) => !("error" in part)));
  assert.ok(parts.at(-1).done);
  const whole = await (await post("/api/generate", { ...body, stream: false })).json();
  assert.equal(parts.map((part) => part.response).join(""), whole.response);
}

async function refusals_are_told() {
  const response = await post("/v1/completions", { prompt, temperature: 9, stream: true });
  await assert.rejects(collect(streamSse(response)), /`temperature`/);
  const nowhere = await post("/no/such/path", {});
  assert.equal(nowhere.status, 404);
  assert.ok(JSON.parse(await nowhere.text()).error);
}

await run([
  openai,
  vllm,
  lmstudio,
  llama_cpp,
  ollama,
  mistral_at_a_cursor,
  llama_cpp_natively,
  adapter_that_aborts_frees_its_slot,
  events_as_its_parser_reads_them,
  fetch_that_aborts_frees_its_slot,
  lines_as_its_parser_reads_them,
  refusals_are_told,
]);
