"""Writes llama.cpp's files of a Hugging Face folder of a Llama- or Qwen2-type model.

    gguf_files.py FOLDER OUT

OUT/bf16.gguf holds the folder's numbers unchanged; q8_0, q4_0 and q4_k_m are made from it by
llama.cpp's own quantiser, which gives a tied embedding more bits than the body (Q8_0 in the 0.5B
model's q4_0.gguf). The files carry no vocabulary: the benches speak in ids.
"""

import argparse
import json
import pathlib

import gguf
import llama_cpp
import numpy as np

import llama

QUANTISED = {
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
}

# Hugging Face's names of a layer's tensors and GGUF's.
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{LAYER[rest]}.{kind}"


def read_safetensors(path: pathlib.Path):
    """Yields name and bf16 numbers, as the upper halves of words, of every tensor."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "BF16":
            raise SystemExit(f"{path}: {name} is {entry['dtype']}; only bf16 models are compared")
        shape, begin = tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
        yield name, np.memmap(path, np.uint16, "r", begin, shape)


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's Llama turns pairs that are neighbours, Hugging Face's the halves of a head."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def write_config(writer: gguf.GGUFWriter, config: dict) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(llama_cpp.LLAMA_FTYPE_MOSTLY_BF16)


def write_bf16(folder: pathlib.Path, path: pathlib.Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    family = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}[config["architectures"][0]]
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    writer = gguf.GGUFWriter(path, family)
    write_config(writer, config)
    for name, numbers in read_safetensors(folder / "model.safetensors"):
        projection = name.split(".")[-2]
        if family == "llama" and projection in heads:
            numbers = interleaved(numbers, heads[projection])
        if numbers.ndim == 1:
            # Norms and biases are f32 in every GGUF file.
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
            writer.add_tensor(gguf_name(name), numbers)
        else:
            numbers = np.ascontiguousarray(numbers).view(np.uint8)
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(gguf_name(name), numbers, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantise(source: pathlib.Path, path: pathlib.Path, ftype: int) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = ftype
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), params)
    if failed:
        raise SystemExit(f"llama.cpp could not quantise {source}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes llama.cpp's files of a model.")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    llama.silence()
    args.out.mkdir(parents=True, exist_ok=True)
    bf16 = args.out / "bf16.gguf"
    write_bf16(args.folder, bf16)
    for name, ftype in QUANTISED.items():
        quantise(bf16, args.out / f"{name}.gguf", ftype)
    for path in sorted(args.out.glob("*.gguf")):
        print(f"{path.name:12} {path.stat().st_size / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
