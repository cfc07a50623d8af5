"""The models of the comparison: what their config.json says, and the tensors it implies."""


def _qwen2(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int) -> dict:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        # candle-transformers insists on the window's keys, in use or not.
        "use_sliding_window": False,
        "sliding_window": 32768,
        "max_window_layers": layers,
        "eos_token_id": 151643,
        "torch_dtype": "bfloat16",
    }


CONFIGS = {
    "qwen2.5-coder-0.5b": _qwen2(896, 4864, 24, 14, 2),
    "qwen2.5-coder-1.5b": _qwen2(1536, 8960, 28, 12, 2),
}


def tensors(config: dict) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a Qwen2 model with a tied head."""
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    head_dim = hidden // config["num_attention_heads"]
    kv = config["num_key_value_heads"] * head_dim
    all_tensors = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        attention = prefix + "self_attn."
        all_tensors |= {
            prefix + "input_layernorm.weight": (hidden,),
            attention + "q_proj.weight": (hidden, hidden),
            attention + "q_proj.bias": (hidden,),
            attention + "k_proj.weight": (kv, hidden),
            attention + "k_proj.bias": (kv,),
            attention + "v_proj.weight": (kv, hidden),
            attention + "v_proj.bias": (kv,),
            attention + "o_proj.weight": (hidden, hidden),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "mlp.gate_proj.weight": (intermediate, hidden),
            prefix + "mlp.up_proj.weight": (intermediate, hidden),
            prefix + "mlp.down_proj.weight": (hidden, intermediate),
        }
    return all_tensors | {"model.norm.weight": (hidden,)}
