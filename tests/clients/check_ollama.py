"""Ollama's Python client against a running weir: check_ollama.py BASE_URL (as in http://127.0.0.1:8012)."""

import sys

import ollama

from checks import breaks_off, is_equal, run

BASE = sys.argv[1].rstrip("/")
client = ollama.Client(host=BASE, timeout=60)
MODEL = "default"
PREFIX, SUFFIX = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
# It goes on and on, so that whoever leaves leaves something that runs.
ENDLESS = "x = [" + "0, " * 100


def generate(prompt=PREFIX, options=None, **fields):
    options = {"temperature": 0, "num_predict": 12} | (options or {})
    return client.generate(MODEL, prompt, options=options, **fields)


def listing():
    (model,) = client.list().models
    assert model.model and model.size > 0 and len(model.digest) == 64, model
    assert model.modified_at.year >= 2024, model.modified_at
    assert model.details.parameter_size and model.details.quantization_level, model.details


def showing():
    shown = client.show(MODEL)
    assert ".Suffix" in shown.template, shown.template
    assert "insert" in shown.capabilities and "completion" in shown.capabilities
    assert shown.parameters.split()[0] == "num_ctx", shown.parameters
    family = shown.modelinfo["general.architecture"]
    is_equal(str(shown.modelinfo[f"{family}.context_length"]), shown.parameters.split()[1], "num_ctx")


def running():
    (model,) = client.ps().models
    assert model.context_length > 0 and model.expires_at.year > 2100, model
    is_equal(model.model, client.list().models[0].model, "model")


def whole():
    reply = generate()
    assert reply.response, "no text"
    assert reply.done and reply.done_reason in ("stop", "length"), reply
    is_equal(reply.model, client.list().models[0].model, "model")
    assert 0 < reply.eval_count <= 12 and reply.prompt_eval_count > 0, reply
    assert reply.total_duration >= reply.eval_duration > 0, reply


def streamed():
    *parts, last = generate(stream=True)
    assert len(parts) > 1, "the stream came in one piece"
    assert not any(part.done for part in parts) and last.done, "only the last is done"
    text = "".join(part.response for part in parts) + last.response
    alone = generate()
    is_equal(text, alone.response, "streamed text")
    is_equal(last.done_reason, alone.done_reason, "done_reason")
    is_equal(last.eval_count, alone.eval_count, "eval_count")


def suffix():
    plain = generate(raw=True)
    for behind in (SUFFIX, ""):
        middle = generate(suffix=behind)
        assert middle.response, f"no text before {behind!r}"
        # The suffix and the marks around it are part of what the model read.
        assert middle.prompt_eval_count > plain.prompt_eval_count, middle
    parts = list(generate(suffix=SUFFIX, stream=True))
    whole = generate(suffix=SUFFIX).response
    is_equal("".join(part.response for part in parts), whole, "streamed text")


def stop():
    text = generate().response
    mark = text[2:4]
    cut = generate(options={"stop": [mark]})
    is_equal(cut.response, text[: text.index(mark)], "text before the stop")
    is_equal(cut.done_reason, "stop", "done_reason")


def seed():
    options = {"temperature": 1, "seed": 7}
    is_equal(generate(options=options).response, generate(options=options).response, "text again")


def loading():
    is_equal(generate(prompt="").done_reason, "load", "done_reason")
    is_equal(generate(prompt="", keep_alive=0).done_reason, "unload", "done_reason")
    assert generate().response, "it answers all the same"


def chat():
    try:
        client.chat(MODEL, [{"role": "user", "content": "hello"}])
    except ollama.ResponseError as error:
        is_equal(error.status_code, 400, "status")
        assert "chat template" in error.error, error.error
    else:
        raise AssertionError("a model without a template chatted")


def errors():
    for stream in (False, True):
        try:
            list(generate(options={"temperature": 9}, stream=stream))
        except ollama.ResponseError as error:
            is_equal(error.status_code, 400, "status")
            assert error.error.startswith("`temperature`"), error.error
        else:
            raise AssertionError("temperature 9 was accepted")


def broken_off_stream_frees_its_slot():
    breaks_off(BASE, generate(ENDLESS, options={"num_predict": -1}, raw=True, stream=True))


CHECKS = [
    listing,
    showing,
    running,
    whole,
    streamed,
    suffix,
    stop,
    seed,
    loading,
    chat,
    errors,
    broken_off_stream_frees_its_slot,
]

sys.exit(run(CHECKS))
