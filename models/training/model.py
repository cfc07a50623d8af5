"""A Llama-type decoder small enough to read, and its way to and from Hugging Face's names."""

import json
import math
import pathlib
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

# Rows of logits that are in memory at one time.
LOSS_ROWS = 1024
# Queries whose scores are in memory at one time, on a CPU.
ATTENTION_ROWS = 128


def precision(device: str) -> torch.dtype:
    """What products are computed in: bf16 where the machine multiplies it. Elsewhere PyTorch
    emulates it, and a step takes minutes."""
    if device == "cuda":
        return torch.bfloat16
    able = torch.cpu.get_capabilities()
    has = any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if has else torch.float32


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; the defaults are the ones trained on a CPU."""

    hidden: int = 256
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    inner: int = 704
    vocab: int = 8192
    context: int = 2048
    theta: float = 10_000.0


class Block(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = s = shape
        linear = lambda rows, columns: nn.Linear(rows, columns, bias=False)  # noqa: E731
        self.input_layernorm = nn.RMSNorm(s.hidden, eps=1e-5)
        self.post_attention_layernorm = nn.RMSNorm(s.hidden, eps=1e-5)
        self.q_proj = linear(s.hidden, s.heads * s.head_dim)
        self.k_proj = linear(s.hidden, s.kv_heads * s.head_dim)
        self.v_proj = linear(s.hidden, s.kv_heads * s.head_dim)
        self.o_proj = linear(s.heads * s.head_dim, s.hidden)
        self.gate_proj = linear(s.hidden, s.inner)
        self.up_proj = linear(s.hidden, s.inner)
        self.down_proj = linear(s.inner, s.hidden)

    def forward(self, x, cos, sin):
        s = self.shape
        h = self.input_layernorm(x)
        split = lambda y, heads: y.unflatten(-1, (heads, s.head_dim)).transpose(1, 2)  # noqa: E731
        q = rotate(split(self.q_proj(h), s.heads), cos, sin)
        k = rotate(split(self.k_proj(h), s.kv_heads), cos, sin)
        v = split(self.v_proj(h), s.kv_heads)
        x = x + self.o_proj(attend(q, k, v).transpose(1, 2).flatten(2))
        h = self.post_attention_layernorm(x)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


def attend(q, k, v):
    """Causal attention of q `[batch, heads, length, dim]` to k and v of fewer heads."""
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    # On a CPU, plain products of some queries with all keys before them take half the time of
    # PyTorch's fused kernel, whose backward pass is slow for heads this small.
    batch, heads, length, dim = q.shape
    kv_heads = k.shape[1]
    q = (q * dim**-0.5).unflatten(1, (kv_heads, heads // kv_heads))
    parts = []
    for start in range(0, length, ATTENTION_ROWS):
        end = min(length, start + ATTENTION_ROWS)
        queries = q[:, :, :, start:end].reshape(batch * kv_heads, -1, dim)
        keys, values = (y[:, :, :end].reshape(batch * kv_heads, end, dim) for y in (k, v))
        scores = torch.bmm(queries, keys.mT).unflatten(1, (-1, end - start)).float()
        seen = torch.arange(start, end)[:, None] >= torch.arange(end)[None, :]
        chances = scores.masked_fill(~seen, -1e9).softmax(-1).to(q.dtype).flatten(1, 2)
        parts.append(torch.bmm(chances, values).view(batch, kv_heads, -1, end - start, dim))
    return torch.cat(parts, 3).reshape(batch, heads, length, dim)


def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class Model(nn.Module):
    """Tokens `[batch, length]` to hidden states `[batch, length, hidden]`; the head is tied."""

    def __init__(self, shape: Shape, low: torch.dtype = torch.bfloat16):
        super().__init__()
        self.shape, self.low = shape, low
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=1e-5)
        self.start()
        inverse = shape.theta ** -(torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
        angles = torch.outer(torch.arange(shape.context).float(), inverse).repeat(1, 2)
        self.register_buffer("cos", angles.cos().to(low), persistent=False)
        self.register_buffer("sin", angles.sin().to(low), persistent=False)

    def start(self):
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                small = name.endswith(("o_proj.weight", "down_proj.weight"))
                scale = 0.7 * self.shape.hidden**-0.5
                scale = 0.02 / math.sqrt(2 * self.shape.layers) if small else scale
                nn.init.normal_(weight, std=0.02 if "embed" in name else scale)

    def forward(self, tokens):
        x = self.embed_tokens(tokens).to(self.low)
        length = tokens.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length])
        return self.norm(x)

    def autocast(self, device: str) -> torch.autocast:
        """What a forward pass is to run in."""
        return torch.autocast(device, torch.bfloat16, enabled=self.low == torch.bfloat16)

    def loss(self, hidden, targets, weights):
        """Sum of the weighted losses in nats over the sum of the weights."""
        return HeadLoss.apply(
            hidden.flatten(0, 1).to(self.low), self.embed_tokens.weight, targets.flatten(),
            weights.flatten(),
        )


class HeadLoss(torch.autograd.Function):
    """Head and cross entropy a few rows at a time, the gradient along with the loss: the logits of
    a whole batch would be ten times as large as all else."""

    @staticmethod
    def forward(ctx, hidden, head, targets, weights):
        low = head.detach().to(hidden.dtype)
        hidden_grad = torch.empty_like(hidden)
        head_grad = torch.zeros_like(head, dtype=torch.float32)
        parts = weights / weights.sum()
        total = torch.zeros((), device=hidden.device)
        for start in range(0, len(hidden), LOSS_ROWS):
            rows = slice(start, start + LOSS_ROWS)
            h = hidden[rows].detach()
            grad, loss = head_rows(h @ low.T, targets[rows], parts[rows])
            total += loss
            hidden_grad[rows] = grad @ low
            head_grad += (grad.T @ h).float()
        ctx.save_for_backward(hidden_grad, head_grad)
        return total

    @staticmethod
    def backward(ctx, grad):
        hidden_grad, head_grad = ctx.saved_tensors
        return hidden_grad * grad.to(hidden_grad.dtype), head_grad * grad, None, None


@torch.compile(dynamic=False)
def head_rows(logits, targets, parts):
    """Gradient by the logits and the loss of some rows."""
    low, logits = logits.dtype, logits.float()
    logs = logits - logits.logsumexp(-1, keepdim=True)
    loss = -(logs.gather(1, targets[:, None])[:, 0] * parts).sum()
    hit = torch.arange(logits.shape[1], device=logits.device)[None, :] == targets[:, None]
    grad = (logs.exp() - hit.float()) * parts[:, None]
    return grad.to(low), loss


def hugging_face_name(name: str) -> str:
    for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
        name = name.replace(f".{part}", f".self_attn.{part}")
    for part in ("gate_proj", "up_proj", "down_proj"):
        name = name.replace(f".{part}", f".mlp.{part}")
    return f"model.{name}"


def save(model: Model, folder: pathlib.Path) -> None:
    """Writes config.json and model.safetensors, in bf16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        hugging_face_name(name): weight.detach().bfloat16().contiguous()
        for name, weight in model.named_parameters()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    s = model.shape
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": s.hidden, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads, "head_dim": s.head_dim, "intermediate_size": s.inner,
        "vocab_size": s.vocab, "max_position_embeddings": s.context, "rope_theta": s.theta,
        "rms_norm_eps": 1e-05, "tie_word_embeddings": True, "hidden_act": "silu",
        "attention_bias": False, "mlp_bias": False, "bos_token_id": 0, "eos_token_id": 0,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def shape_of(folder: pathlib.Path) -> Shape:
    c = json.loads((folder / "config.json").read_text())
    return Shape(
        hidden=c["hidden_size"], layers=c["num_hidden_layers"], heads=c["num_attention_heads"],
        kv_heads=c["num_key_value_heads"], head_dim=c["head_dim"], inner=c["intermediate_size"],
        vocab=c["vocab_size"], context=c["max_position_embeddings"], theta=c["rope_theta"],
    )


def load(folder: pathlib.Path, low: torch.dtype = torch.bfloat16) -> Model:
    model = Model(shape_of(folder), low)
    tensors = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(tensors[hugging_face_name(name)].float())
    return model


def grow(small: Model, shape: Shape) -> Model:
    """A deeper model that computes what `small` does: each new layer is a copy of the one before
    it that adds nothing yet."""
    assert asdict(shape) | {"layers": 0, "context": 0} == (
        asdict(small.shape) | {"layers": 0, "context": 0}
    ), "only layers and positions may be added"
    model = Model(shape, small.low)
    more = shape.layers - small.shape.layers
    # Spread over the upper half, where a copy's attention fits what it reads.
    after = {small.shape.layers - 1 - 2 * step for step in range(more)}
    sources = []
    for at in range(small.shape.layers):
        sources += [(at, True), (at, False)] if at in after else [(at, True)]
    with torch.no_grad():
        model.embed_tokens.load_state_dict(small.embed_tokens.state_dict())
        model.norm.load_state_dict(small.norm.state_dict())
        for layer, (at, is_old) in zip(model.layers, sources, strict=True):
            layer.load_state_dict(small.layers[at].state_dict())
            if not is_old:
                layer.o_proj.weight.zero_()
                layer.down_proj.weight.zero_()
    return model
