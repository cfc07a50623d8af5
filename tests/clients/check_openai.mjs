// The official JavaScript client against a running weir: check_openai.mjs BASE_URL (as in http://127.0.0.1:8012).

import assert from "node:assert/strict";
import { base, breaksOff, client as load, run } from "./checks.mjs";

const { default: OpenAI } = await load("openai");

// A stream that is meant to be broken off asks for more than anybody waits for.
const LONG = 800;

const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const model = "default";

const complete = (fields) => client.completions.create({ model, temperature: 0, ...fields });

async function completion() {
  const reply = await complete({ prompt: "def add(a, b):\n    return ", max_tokens: 8 });
  assert.equal(reply.object, "text_completion");
  assert.equal(reply.choices.length, 1);
  assert.ok(reply.choices[0].text);
  assert.ok(["stop", "length"].includes(reply.choices[0].finish_reason));
  const { prompt_tokens, completion_tokens, total_tokens } = reply.usage;
  assert.ok(prompt_tokens > 0 && completion_tokens > 0 && completion_tokens <= 8);
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
}

async function headers() {
  const fields = { model, prompt: "x = ", max_tokens: 1 };
  const { data, response } = await client.completions.create(fields).withResponse();
  assert.equal(response.headers.get("x-weir-route"), "local");
  assert.ok(response.headers.get("x-weir-reason"));
  assert.equal(data._request_id, response.headers.get("x-request-id"));
}

async function fim() {
  const prompt = "def add(a, b):\n    return ";
  const suffix = "\n\nprint(add(1, 2))\n";
  const middle = await complete({ prompt, suffix, max_tokens: 16 });
  const plain = await complete({ prompt, max_tokens: 16 });
  assert.ok(middle.choices[0].text);
  // The suffix is part of what the model read.
  const more = middle.usage.prompt_tokens - plain.usage.prompt_tokens;
  assert.ok(more > 4, `only ${more} more prompt tokens than without a suffix`);
}

async function streaming_with_usage() {
  const fields = { prompt: "for i in range(", max_tokens: 12 };
  const whole = await complete(fields);
  const stream = await complete({ ...fields, stream: true, stream_options: { include_usage: true } });
  const parts = [];
  for await (const chunk of stream) parts.push(chunk);
  const last = parts.pop();
  assert.ok(parts.length > 1, "the stream came in one piece");
  const choices = parts.flatMap((chunk) => chunk.choices);
  assert.equal(choices.map((choice) => choice.text).join(""), whole.choices[0].text);
  assert.ok(parts.every((chunk) => chunk.usage === null), "usage before the end");
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.prompt_tokens, whole.usage.prompt_tokens);
  assert.equal(last.usage.completion_tokens, whole.usage.completion_tokens);
  assert.equal(choices.pop().finish_reason, whole.choices[0].finish_reason);
  assert.ok(choices.every((choice) => choice.finish_reason === null), "finished before the end");
}

async function list_of_prompts() {
  const prompts = ["import ", "class Point:\n    def ", "while "];
  const reply = await complete({ prompt: prompts, max_tokens: 6 });
  assert.deepEqual(reply.choices.map((choice) => choice.index), [0, 1, 2]);
  for (const [index, prompt] of prompts.entries()) {
    const alone = await complete({ prompt, max_tokens: 6 });
    assert.equal(reply.choices[index].text, alone.choices[0].text);
  }
}

async function several_choices() {
  const fields = { prompt: "def ", max_tokens: 8, n: 3, temperature: 1, seed: 7 };
  const reply = await complete(fields);
  assert.deepEqual(reply.choices.map((choice) => choice.index), [0, 1, 2]);
  const texts = reply.choices.map((choice) => choice.text);
  assert.ok(new Set(texts).size > 1, "all choices are the same");
  const again = await complete(fields);
  assert.deepEqual(again.choices.map((choice) => choice.text), texts);
}

async function stop() {
  const fields = { prompt: "def add(a, b):\n    return ", max_tokens: 24 };
  const whole = (await complete(fields)).choices[0].text;
  assert.ok(whole.length > 3, `too short to cut: ${JSON.stringify(whole)}`);
  const mark = whole.slice(2, 4);
  const cut = (await complete({ ...fields, stop: [mark] })).choices[0];
  assert.equal(cut.text, whole.slice(0, whole.indexOf(mark)));
  assert.equal(cut.finish_reason, "stop");
}

async function logprobs() {
  const reply = await complete({ prompt: "x = [1, 2, ", max_tokens: 5, logprobs: 3 });
  const { text, logprobs } = reply.choices[0];
  const { tokens, token_logprobs, top_logprobs, text_offset } = logprobs;
  assert.ok(tokens.length > 0 && tokens.length <= 5);
  assert.equal(tokens.join(""), text);
  assert.equal(text_offset.length, tokens.length);
  for (const [index, token] of tokens.entries()) {
    assert.ok(token_logprobs[index] <= 0);
    const top = Object.entries(top_logprobs[index]);
    assert.ok(top.length >= 3, `${top.length} alternatives`);
    // The likeliest token of a greedy run is the one that was chosen.
    assert.equal(top.reduce((best, one) => (one[1] > best[1] ? one : best))[0], token);
  }
}

async function models() {
  const listed = [];
  for await (const one of client.models.list()) listed.push(one);
  assert.ok(listed.length > 0 && listed.every((one) => one.object === "model"));
  const one = await client.models.retrieve(listed[0].id);
  assert.equal(one.id, listed[0].id);
  await assert.rejects(client.models.retrieve("no-such-model"), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError, String(error));
    assert.equal(error.code, "model_not_found");
    return true;
  });
}

async function error() {
  await assert.rejects(complete({ prompt: "x", max_tokens: 1, temperature: 3 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError, String(error));
    assert.equal(error.status, 400);
    assert.equal(error.param, "temperature");
    assert.equal(error.type, "invalid_request_error");
    return true;
  });
}

async function broken_off_stream_frees_its_slot() {
  const fields = { prompt: "def ", max_tokens: LONG, stream: true, ignore_eos: true };
  const stream = await complete(fields);
  await breaksOff(stream, () => stream.controller.abort());
}

const checks = [
  completion,
  headers,
  fim,
  streaming_with_usage,
  list_of_prompts,
  several_choices,
  stop,
  logprobs,
  models,
  error,
  broken_off_stream_frees_its_slot,
];

await run(checks);
