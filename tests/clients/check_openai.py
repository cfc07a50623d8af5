"""The official Python client against a running weir: check_openai.py BASE_URL (as in http://127.0.0.1:8012)."""

import sys

import openai

from checks import breaks_off, is_equal, run

# A stream that is meant to be broken off asks for more than anybody waits for.
LONG = 800

BASE = sys.argv[1].rstrip("/")
client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0, timeout=60)
MODEL = "default"


def complete(**fields):
    return client.completions.create(**({"model": MODEL, "temperature": 0} | fields))


def completion():
    reply = complete(prompt="def add(a, b):\n    return ", max_tokens=8)
    is_equal(reply.object, "text_completion", "object")
    is_equal(len(reply.choices), 1, "number of choices")
    choice = reply.choices[0]
    assert choice.text, "no text"
    assert choice.finish_reason in ("stop", "length"), f"finish_reason {choice.finish_reason!r}"
    usage = reply.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 8, usage
    is_equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total_tokens")


def headers():
    raw = client.completions.with_raw_response.create(model=MODEL, prompt="x = ", max_tokens=1)
    is_equal(raw.headers["x-weir-route"], "local", "x-weir-route")
    assert raw.headers["x-weir-reason"], "no x-weir-reason"
    is_equal(raw.request_id, raw.headers["x-request-id"], "request id")
    is_equal(raw.parse().object, "text_completion", "object")


def fim():
    prefix, suffix = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
    middle = complete(prompt=prefix, suffix=suffix, max_tokens=16)
    plain = complete(prompt=prefix, max_tokens=16)
    assert middle.choices[0].text, "no text"
    # The suffix is part of what the model read.
    more = middle.usage.prompt_tokens - plain.usage.prompt_tokens
    assert more > 4, f"only {more} more prompt tokens than without a suffix"


def streaming_with_usage():
    fields = {"prompt": "for i in range(", "max_tokens": 12}
    whole = complete(**fields)
    stream = complete(**fields, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    *parts, last = chunks
    assert len(parts) > 1, "the stream came in one piece"
    text = "".join(choice.text for chunk in parts for choice in chunk.choices)
    is_equal(text, whole.choices[0].text, "streamed text")
    assert all(chunk.usage is None for chunk in parts), "usage before the end"
    is_equal(last.choices, [], "choices of the last chunk")
    is_equal(last.usage.completion_tokens, whole.usage.completion_tokens, "completion_tokens")
    is_equal(last.usage.prompt_tokens, whole.usage.prompt_tokens, "prompt_tokens")
    reasons = [choice.finish_reason for chunk in parts for choice in chunk.choices]
    is_equal(reasons[-1], whole.choices[0].finish_reason, "finish_reason")
    assert not any(reasons[:-1]), "a finish_reason before the end"


def list_of_prompts():
    prompts = ["import ", "class Point:\n    def ", "while "]
    reply = complete(prompt=prompts, max_tokens=6)
    is_equal([choice.index for choice in reply.choices], [0, 1, 2], "indices")
    for prompt, choice in zip(prompts, reply.choices):
        alone = complete(prompt=prompt, max_tokens=6)
        is_equal(choice.text, alone.choices[0].text, f"text after {prompt!r}")


def several_choices():
    reply = complete(prompt="def ", max_tokens=8, n=3, temperature=1, seed=7)
    is_equal([choice.index for choice in reply.choices], [0, 1, 2], "indices")
    assert len({choice.text for choice in reply.choices}) > 1, "all choices are the same"
    again = complete(prompt="def ", max_tokens=8, n=3, temperature=1, seed=7)
    is_equal([c.text for c in again.choices], [c.text for c in reply.choices], "texts again")


def stop():
    fields = {"prompt": "def add(a, b):\n    return ", "max_tokens": 24}
    whole = complete(**fields).choices[0].text
    assert len(whole) > 3, f"too short to cut: {whole!r}"
    mark = whole[2:4]
    cut = complete(**fields, stop=[mark]).choices[0]
    is_equal(cut.text, whole[: whole.index(mark)], "text before the stop")
    is_equal(cut.finish_reason, "stop", "finish_reason")


def logprobs():
    choice = complete(prompt="x = [1, 2, ", max_tokens=5, logprobs=3).choices[0]
    found = choice.logprobs
    count = len(found.tokens)
    assert 0 < count <= 5, f"{count} tokens"
    is_equal("".join(found.tokens), choice.text, "joined tokens")
    is_equal(len(found.token_logprobs), count, "number of token_logprobs")
    is_equal(len(found.text_offset), count, "number of text_offset")
    for token, logprob, top in zip(found.tokens, found.token_logprobs, found.top_logprobs):
        assert logprob <= 0, f"log-probability {logprob}"
        assert len(top) >= 3, f"{len(top)} alternatives"
        is_equal(max(top, key=top.get), token, "likeliest token of a greedy run")


def models():
    listed = client.models.list().data
    assert listed and all(model.object == "model" for model in listed), listed
    one = client.models.retrieve(listed[0].id)
    is_equal(one.id, listed[0].id, "id")
    try:
        client.models.retrieve("no-such-model")
    except openai.NotFoundError as error:
        is_equal(error.code, "model_not_found", "code")
    else:
        raise AssertionError("an unknown model was found")


def error():
    try:
        complete(prompt="x", max_tokens=1, temperature=3)
    except openai.BadRequestError as error:
        is_equal(error.status_code, 400, "status")
        is_equal(error.param, "temperature", "param")
        is_equal(error.type, "invalid_request_error", "type")
    else:
        raise AssertionError("temperature 3 was accepted")


def broken_off_stream_frees_its_slot():
    fields = {"prompt": "def ", "max_tokens": LONG, "extra_body": {"ignore_eos": True}}
    breaks_off(BASE, complete(**fields, stream=True))


CHECKS = [
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
]

sys.exit(run(CHECKS))
