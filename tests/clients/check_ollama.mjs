// Ollama's JavaScript client against a running weir: check_ollama.mjs BASE_URL (as in http://127.0.0.1:8012).

import assert from "node:assert/strict";
import { base, breaksOff, client as load, run } from "./checks.mjs";

const { Ollama } = await load("ollama");

const client = new Ollama({ host: base });
const model = "default";
const prompt = "def add(a, b):\n    return ";
const suffix = "\n\nprint(add(1, 2))\n";
// It goes on and on, so that whoever leaves leaves something that runs.
const ENDLESS = "x = [" + "0, ".repeat(100);

function generate({ options = {}, ...fields } = {}) {
  return client.generate({
    model,
    prompt,
    options: { temperature: 0, num_predict: 12, ...options },
    ...fields,
  });
}

async function collect(stream) {
  const parts = [];
  for await (const part of await stream) parts.push(part);
  return parts;
}

const text = (parts) => parts.map((part) => part.response).join("");

async function listing() {
  const { models } = await client.list();
  assert.equal(models.length, 1);
  assert.ok(models[0].name && models[0].size > 0 && models[0].digest.length === 64);
  assert.ok(new Date(models[0].modified_at).getFullYear() >= 2024);
}

async function showing() {
  const shown = await client.show({ model });
  assert.ok(shown.template.includes(".Suffix"));
  assert.ok(shown.capabilities.includes("insert"));
  assert.match(shown.parameters, /^num_ctx\s+\d+$/);
  const family = shown.model_info["general.architecture"];
  assert.ok(shown.model_info[`${family}.context_length`] > 0);
}

async function running() {
  const { models } = await client.ps();
  assert.equal(models.length, 1);
  assert.ok(new Date(models[0].expires_at).getFullYear() > 2100);
}

async function version() {
  assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/);
}

async function whole() {
  const reply = await generate();
  assert.ok(reply.response && reply.done);
  assert.ok(["stop", "length"].includes(reply.done_reason));
  assert.ok(reply.eval_count > 0 && reply.eval_count <= 12 && reply.prompt_eval_count > 0);
  assert.ok(reply.total_duration >= reply.eval_duration && reply.eval_duration > 0);
}

async function streamed() {
  const parts = await collect(generate({ stream: true }));
  assert.ok(parts.length > 2, "the stream came in one piece");
  assert.deepEqual(parts.map((part) => part.done).indexOf(true), parts.length - 1);
  const alone = await generate();
  assert.equal(text(parts), alone.response);
  assert.equal(parts.at(-1).eval_count, alone.eval_count);
}

async function fim() {
  const plain = await generate({ raw: true });
  for (const behind of [suffix, ""]) {
    const middle = await generate({ suffix: behind });
    assert.ok(middle.response, `no text before ${JSON.stringify(behind)}`);
    // The suffix and the marks around it are part of what the model read.
    assert.ok(middle.prompt_eval_count > plain.prompt_eval_count);
  }
  const parts = await collect(generate({ suffix, stream: true }));
  assert.equal(text(parts), (await generate({ suffix })).response);
}

async function stop() {
  const all = (await generate()).response;
  const mark = all.slice(2, 4);
  const cut = await generate({ options: { stop: [mark] } });
  assert.equal(cut.response, all.slice(0, all.indexOf(mark)));
  assert.equal(cut.done_reason, "stop");
}

async function loading() {
  assert.equal((await generate({ prompt: "" })).done_reason, "load");
  assert.equal((await generate({ prompt: "", keep_alive: 0 })).done_reason, "unload");
}

async function chat() {
  const messages = [{ role: "user", content: "hello" }];
  await assert.rejects(client.chat({ model, messages }), (error) => {
    assert.equal(error.name, "ResponseError");
    assert.equal(error.status_code, 400);
    assert.match(error.error, /chat template/);
    return true;
  });
}

async function errors() {
  for (const stream of [false, true]) {
    await assert.rejects(generate({ stream, options: { temperature: 9 } }), (error) => {
      assert.equal(error.name, "ResponseError");
      assert.equal(error.status_code, 400);
      assert.match(error.error, /^`temperature`/);
      return true;
    });
  }
}

async function broken_off_stream_frees_its_slot() {
  const options = { num_predict: -1 };
  const stream = await generate({ prompt: ENDLESS, raw: true, stream: true, options });
  await breaksOff(stream, () => stream.abort());
}

await run([
  listing,
  showing,
  running,
  version,
  whole,
  streamed,
  fim,
  stop,
  loading,
  chat,
  errors,
  broken_off_stream_frees_its_slot,
]);
