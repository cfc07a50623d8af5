"""Gives a GGUF file that has none the vocabulary of a Hugging Face tokenizer.

    vocabulary.py TOKENIZER_JSON IN.gguf OUT.gguf

The files of ../peers speak in ids; a server is asked in text. A byte-level BPE whose texts are
split as Qwen2's are, as both the embedded model's and Qwen's own are; ids that the tokenizer does
not have and the weights do become unused tokens. Weights are copied as they are.
"""

import argparse
import json
import pathlib

import gguf

FIM = {
    "pre": "<|fim_prefix|>",
    "suf": "<|fim_suffix|>",
    "mid": "<|fim_middle|>",
    "pad": "<|fim_pad|>",
}
OWN_KEYS = ("GGUF.", "tokenizer.")


def copy_fields(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for name, field in reader.fields.items():
        if name == "general.architecture" or name.startswith(OWN_KEYS):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)


def copy_tensors(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for tensor in reader.tensors:
        shape = tensor.data.shape
        writer.add_tensor(tensor.name, tensor.data, raw_shape=shape, raw_dtype=tensor.tensor_type)


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: dict, rows: int) -> None:
    ids = dict(tokenizer["model"]["vocab"])
    control = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ids |= control
    tokens = [f"[UNUSED{at}]" for at in range(rows)]
    types = [gguf.TokenType.UNUSED] * rows
    for text, at in ids.items():
        tokens[at] = text
        types[at] = gguf.TokenType.CONTROL if text in control else gguf.TokenType.NORMAL
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_eos_token_id(control["<|endoftext|>"])
    writer.add_bos_token_id(control["<|endoftext|>"])
    writer.add_add_bos_token(False)
    for name, text in FIM.items():
        writer.add_uint32(f"tokenizer.ggml.fim_{name}_token_id", control[text])


def main() -> None:
    parser = argparse.ArgumentParser(description="Gives a GGUF file a vocabulary.")
    parser.add_argument("tokenizer", type=pathlib.Path)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    reader = gguf.GGUFReader(args.source)
    architecture = reader.fields["general.architecture"].contents()
    embedding = next(t for t in reader.tensors if t.name == "token_embd.weight")
    writer = gguf.GGUFWriter(args.out, architecture)
    copy_fields(reader, writer)
    tokenizer = json.loads(args.tokenizer.read_text())
    add_vocabulary(writer, tokenizer, int(embedding.shape[1]))
    copy_tensors(reader, writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
