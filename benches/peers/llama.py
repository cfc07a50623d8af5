"""llama.cpp through its C interface, as thin as the comparison allows."""

import ctypes
import time

import llama_cpp as c
import numpy as np

# llama.cpp's own default: rows of one pass through the layers.
UBATCH = 512
FLASH = {True: c.LLAMA_FLASH_ATTN_TYPE_ENABLED, False: c.LLAMA_FLASH_ATTN_TYPE_DISABLED}


@c.llama_log_callback
def _silent(_level, _text, _data):
    pass


def silence() -> None:
    """llama.cpp reports each tensor it touches; answers go over the same terminal."""
    c.llama_log_set(_silent, None)


c.llama_backend_init()


class Model:
    """Weights, loaded as llama.cpp does by default: repacked for the processor where it can."""

    def __init__(self, path: str):
        silence()
        self._model = c.llama_model_load_from_file(
            path.encode(), c.llama_model_default_params()
        )
        if not self._model:
            raise SystemExit(f"llama.cpp could not load {path}")
        self.vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self._model))

    def weight_bytes(self) -> int:
        return c.llama_model_size(self._model)

    def kv_bytes_per_token(self) -> int:
        """f16, all layers."""
        head_dim = int(self._text("{arch}.attention.key_length"))
        heads = c.llama_model_n_head_kv(self._model)
        return 2 * 2 * c.llama_model_n_layer(self._model) * heads * head_dim

    def description(self) -> str:
        text = ctypes.create_string_buffer(256)
        c.llama_model_desc(self._model, text, len(text))
        return text.value.decode()

    def _text(self, key: str) -> str:
        text = ctypes.create_string_buffer(256)
        if "{arch}" in key:
            key = key.format(arch=self._text("general.architecture"))
        c.llama_model_meta_val_str(self._model, key.encode(), text, len(text))
        return text.value.decode()


class Context:
    """KV memory of `sequences` sequences of `tokens` tokens, f16, each with memory of its own."""

    def __init__(self, model: Model, tokens: int, sequences: int, flash: bool, threads: int):
        params = c.llama_context_default_params()
        # llama.cpp rounds to this anyway; rounding here keeps the room of a sequence exact.
        room = -(-tokens // 256) * 256
        params.n_ctx = room * sequences
        params.n_seq_max = sequences
        params.n_batch = params.n_ubatch = UBATCH
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH[flash]
        params.kv_unified = False
        self._context = c.llama_init_from_model(model._model, params)
        if not self._context:
            raise SystemExit("llama.cpp could not make a context")
        self._memory = c.llama_get_memory(self._context)
        self._batch = c.llama_batch_init(UBATCH, 0, 1)
        self._vocab = model.vocab
        # Inside llama_decode, until its logits can be read; nothing of Python's is counted.
        self.seconds = 0.0

    def close(self) -> None:
        c.llama_batch_free(self._batch)
        c.llama_free(self._context)

    def truncate(self, sequence: int, tokens: int) -> None:
        """Forgets what stands behind the first `tokens` tokens of a sequence."""
        if not c.llama_memory_seq_rm(self._memory, sequence, tokens, -1):
            raise SystemExit("llama.cpp keeps what it was told to forget")

    def run(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """One pass over rows of (sequence, position, id, whether its logits are wanted)."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (sequence, position, token, wanted) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        began = time.perf_counter()
        failed = c.llama_decode(self._context, batch)
        c.llama_synchronize(self._context)
        self.seconds += time.perf_counter() - began
        if failed:
            raise SystemExit(f"llama_decode returned {failed}")

    def logits(self, row: int) -> np.ndarray:
        """`[vocab]` f32 of a row of the last pass, valid until the next."""
        logits = c.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(logits, (self._vocab,))

    def prefill(self, sequence: int, ids: list[int]) -> int:
        """Reads a prompt into an empty sequence and returns the likeliest next id."""
        for start in range(0, len(ids), UBATCH):
            part = ids[start : start + UBATCH]
            last = len(ids) - 1
            self.run([(sequence, at, id, at == last) for at, id in enumerate(part, start)])
        return int(self.logits(len(part) - 1).argmax())

    def decode(self, position: int, ids: list[int]) -> list[int]:
        """One token of every sequence."""
        self.run([(sequence, position, id, True) for sequence, id in enumerate(ids)])
        return [int(self.logits(row).argmax()) for row in range(len(ids))]
