"""What models answer, worked out with numpy alone: the measure that conversions are held to.

Written from the models' definitions, in float64, with the names of the checkpoints; nothing here
knows of GGUF.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.tiny_models import Tiny

Array = NDArray[np.float64]


def log_probs(tiny: Tiny, ids: Sequence[int], *, long: bool = False) -> Array:
    """Log-probabilities of the next token at every position, `[len(ids), vocabulary]`."""
    return _Decoder(tiny, long).run(ids)


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def _silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-x)))


def _gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


def rope_frequencies(
    config: Mapping[str, Any], dim: int, theta: float, long: bool
) -> tuple[Array, float]:
    """Angle per position of each pair, and what cosine and sine are multiplied by."""
    scaling = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    plain = 1 / theta ** (np.arange(0, dim, 2) / dim)
    if kind == "linear":
        return plain / scaling["factor"], 1.0
    if kind == "llama3":
        return _llama3(plain, scaling), 1.0
    if kind == "yarn":
        usual = 0.1 * math.log(scaling["factor"]) + 1
        return _yarn(plain, scaling, dim, theta), scaling.get("attention_factor", usual)
    if kind in {"longrope", "su"}:
        factors = np.array(scaling["long_factor" if long else "short_factor"])
        original = config["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        return plain / factors, math.sqrt(1 + math.log(scale) / math.log(original))
    return plain, 1.0


def _llama3(plain: Array, scaling: Mapping[str, Any]) -> Array:
    old, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    wave = 2 * np.pi / plain
    smooth = (old / wave - low) / (high - low)
    between = (1 - smooth) * plain / factor + smooth * plain
    slow = np.where(wave > old / low, plain / factor, between)
    return np.asarray(np.where(wave < old / high, plain, slow))


def _yarn(plain: Array, scaling: Mapping[str, Any], dim: int, theta: float) -> Array:
    old = scaling["original_max_position_embeddings"]

    def turns(count: float) -> float:
        return dim * math.log(old / (count * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(turns(scaling.get("beta_fast", 32))), 0)
    high = min(math.ceil(turns(scaling.get("beta_slow", 1))), dim - 1)
    ramp = np.clip((np.arange(dim // 2) - low) / max(high - low, 0.001), 0, 1)
    return np.asarray(plain / scaling["factor"] * ramp + plain * (1 - ramp))


def turned(x: Array, angles: Array, scale: float = 1.0) -> Array:
    """`x` `[n, heads, dim]` turned by `[n, pairs]`: element i with element i + pairs."""
    pairs = angles.shape[-1]
    cos, sin = np.cos(angles)[:, None] * scale, np.sin(angles)[:, None] * scale
    first, second, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], -1)


def neighbours_turned(x: Array, angles: Array, scale: float) -> Array:
    """The same with element 2i and element 2i + 1."""
    halves = np.concatenate([x[..., ::2], x[..., 1::2]], -1)
    out = turned(halves, angles, scale)
    pairs = angles.shape[-1]
    return np.asarray(np.stack([out[..., :pairs], out[..., pairs:]], -1).reshape(x.shape))


class _Decoder:
    def __init__(self, tiny: Tiny, long: bool) -> None:
        self.config = tiny.config
        self.long = long
        self.last = "out_proj" if "Lfm2" in tiny.config["architectures"][0] else "o_proj"
        self.kind: str = tiny.config["architectures"][0]
        self.gemma = self.kind.startswith("Gemma")
        self.is_lfm2 = self.kind == "Lfm2ForCausalLM"
        self.weights = {name: np.asarray(w, np.float64) for name, w in tiny.weights.items()}
        self.width, self.heads = self.config["hidden_size"], self.config["num_attention_heads"]
        self.kv = self.config["num_key_value_heads"]
        self.dim = self.config.get("head_dim") or self.width // self.heads

    def norm(self, x: Array, name: str) -> Array:
        if self.kind == "CohereForCausalLM":
            centred = x - x.mean(-1, keepdims=True)
            spread = np.sqrt(x.var(-1, keepdims=True) + self.config["layer_norm_eps"])
            return np.asarray(centred / spread * self.weights[f"{name}.weight"])
        weight = self.weights[f"{name}.weight"] + (1 if self.gemma else 0)
        scale = np.sqrt(
            (x * x).mean(-1, keepdims=True)
            + self.config.get("norm_eps", self.config["rms_norm_eps"])
        )
        return np.asarray(x / scale * weight)

    def linear(self, x: Array, name: str) -> Array:
        return np.asarray(
            x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0)
        )

    def hidden(self, ids: Sequence[int]) -> Array:
        """The states before the output matrix."""
        embedding = self.weights["model.embed_tokens.weight"]
        scale = math.sqrt(self.width) if self.gemma else self.config.get("embedding_multiplier", 1)
        x = embedding[list(ids)] * scale
        for layer in range(self.config["num_hidden_layers"]):
            x = self.layer(x, layer)
        return self.norm(x, "model.embedding_norm" if self.is_lfm2 else "model.norm")

    def run(self, ids: Sequence[int]) -> Array:
        embedding = self.weights["model.embed_tokens.weight"]
        x = self.hidden(ids) @ self.weights.get("lm_head.weight", embedding).T
        x = x * self.config.get("logit_scale", 1) / self.config.get("logits_scaling", 1)
        cap = self.config.get("final_logit_softcapping")
        x = np.tanh(x / cap) * cap if cap else x
        x = x - x.max(-1, keepdims=True)
        return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)))

    def layer(self, x: Array, layer: int) -> Array:
        at = f"model.layers.{layer}."
        if self.is_lfm2:
            h = self.norm(x, f"{at}operator_norm")
            convolves = self.config["layer_types"][layer] == "conv"
            x = x + (self.convolved(h, f"{at}conv.") if convolves else self.attention(h, layer))
            h = self.norm(x, f"{at}ffn_norm")
            return x + self.gated(h, f"{at}feed_forward", ("w1", "w3", "w2"))
        if self.kind.startswith("Olmo"):
            x = x + self.norm(self.attention(x, layer), f"{at}post_attention_layernorm")
            return x + self.norm(self.network(x, at), f"{at}post_feedforward_layernorm")
        if self.kind == "CohereForCausalLM":
            h = self.norm(x, f"{at}input_layernorm")
            return x + self.attention(h, layer) + self.network(h, at)
        h = self.attention(self.norm(x, f"{at}input_layernorm"), layer)
        if self.kind.startswith(("Gemma2", "Gemma3")):
            x = x + self.norm(h, f"{at}post_attention_layernorm")
            h = self.network(self.norm(x, f"{at}pre_feedforward_layernorm"), at)
            return x + self.norm(h, f"{at}post_feedforward_layernorm")
        share = self.config.get("residual_multiplier", 1)
        x = x + h * share
        h = self.network(self.norm(x, f"{at}post_attention_layernorm"), at)
        return np.asarray(x + h * share)

    def convolved(self, h: Array, at: str) -> Array:
        """Each channel a sum of its last values, gated before and after."""
        before, after, x = np.split(self.linear(h, f"{at}in_proj"), 3, -1)
        taps = self.weights[f"{at}conv.weight"][:, 0]
        count = taps.shape[-1]
        padded = np.concatenate([np.zeros((count - 1, self.width)), before * x])
        mixed = sum(padded[tap : tap + len(h)] * taps[:, tap] for tap in range(count))
        return self.linear(after * mixed, f"{at}out_proj")

    def normed(self, x: Array, name: str) -> Array:
        """Over each head, or over all of them together."""
        together = self.weights[f"{name}.weight"].size > self.dim
        flat = x.reshape(len(x), -1) if together else x
        return np.asarray(self.norm(flat, name).reshape(x.shape))

    def slides(self, layer: int) -> bool:
        """Gemma 2 and GPT-OSS begin with a window and take turns; Gemma 3 says it."""
        if "layer_types" in self.config:
            return bool(self.config["layer_types"][layer] == "sliding_attention")
        return self.kind in {"Gemma2ForCausalLM", "GptOssForCausalLM"} and layer % 2 == 0

    def attention(self, h: Array, layer: int) -> Array:
        n, at = len(h), f"model.layers.{layer}.self_attn."
        q, k, v = self.queries(h, at)
        norm = "layernorm" if self.is_lfm2 else "norm"
        if f"{at}q_{norm}.weight" in self.weights:
            q, k = self.normed(q, f"{at}q_{norm}"), self.normed(k, f"{at}k_{norm}")
        theta = self.config["rope_theta"]
        slides = self.slides(layer)
        config = self.config
        if slides and "layer_types" in self.config:
            theta, config = self.config.get("rope_local_base_freq", theta), {}
        turned_dims = int(self.dim * self.config.get("partial_rotary_factor", 1))
        frequencies, scale = rope_frequencies(config, turned_dims, theta, self.long)
        angles = np.outer(np.arange(n), frequencies)
        if self.config.get("no_rope_layers", [1] * (layer + 1))[layer]:
            turn = neighbours_turned if self.kind == "CohereForCausalLM" else turned
            q, k = turn(q, angles, scale), turn(k, angles, scale)
        k, v = (np.repeat(one, self.heads // self.kv, 1) for one in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k)
        scale = 1 / math.sqrt(self.config.get("query_pre_attn_scalar", self.dim))
        scores = scores * self.config.get("attention_multiplier", scale)
        cap = self.config.get("attn_logit_softcapping")
        scores = np.tanh(scores / cap) * cap if cap else scores
        distance = np.arange(n)[:, None] - np.arange(n)
        hidden = distance < 0
        if slides:
            hidden = hidden | (distance >= self.config["sliding_window"])
        if self.config.get("use_bidirectional_attention"):
            hidden = (abs(distance) > self.config["sliding_window"] // 2) & slides
        weights = self.sunk(np.where(hidden, -np.inf, scores), at)
        return self.linear(np.einsum("hqk,khd->qhd", weights, v).reshape(n, -1), at + self.last)

    def sunk(self, scores: Array, at: str) -> Array:
        """Softmax; with sinks, each head has one more place that takes weight and gives nothing."""
        sinks = self.weights.get(f"{at}sinks")
        if sinks is None:
            return _softmax(scores)
        heads, n, _ = scores.shape
        more = np.broadcast_to(sinks[:, None, None], (heads, n, 1))
        return _softmax(np.concatenate([scores, more], -1))[..., :-1]

    def queries(self, h: Array, at: str) -> tuple[Array, Array, Array]:
        n, counts = len(h), (self.heads, self.kv, self.kv)
        if f"{at}qkv_proj.weight" in self.weights:
            ends = np.cumsum(counts)[:-1] * self.dim
            parts = np.split(self.linear(h, f"{at}qkv_proj"), ends, -1)
        else:
            parts = [self.linear(h, f"{at}{name}_proj") for name in "qkv"]
        q, k, v = (
            part.reshape(n, count, self.dim) for part, count in zip(parts, counts, strict=True)
        )
        return q, k, v

    def network(self, h: Array, at: str) -> Array:
        if self.kind == "MixtralForCausalLM":
            return self.mixtral(h, f"{at}block_sparse_moe.")
        if self.kind == "GptOssForCausalLM":
            return self.gptoss(h, f"{at}mlp.")
        if "Moe" in self.kind:
            return self.qwen_moe(h, f"{at}mlp.")
        if self.kind == "Phi3ForCausalLM":
            gate, up = np.split(self.linear(h, f"{at}mlp.gate_up_proj"), 2, -1)
            return self.linear(_silu(gate) * up, f"{at}mlp.down_proj")
        return self.gated(h, f"{at}mlp")

    def gated(
        self, h: Array, at: str, names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    ) -> Array:
        gate, up, down = (f"{at}.{name}" for name in names)
        bend = _gelu_tanh if self.gemma else _silu
        return self.linear(bend(self.linear(h, gate)) * self.linear(h, up), down)

    def chosen(self, scores: Array) -> tuple[Array, NDArray[np.int64]]:
        """The best experts of each token, and their scores."""
        best = np.argsort(-scores, -1)[:, : self.config["num_experts_per_tok"]]
        return np.take_along_axis(scores, best, -1), best

    def mixtral(self, h: Array, at: str) -> Array:
        scores, best = self.chosen(self.linear(h, f"{at}gate"))
        return self.mixed(
            h,
            _softmax(scores),
            best,
            lambda x, e: self.gated(x, f"{at}experts.{e}", ("w1", "w3", "w2")),
        )

    def qwen_moe(self, h: Array, at: str) -> Array:
        shares, best = self.chosen(_softmax(self.linear(h, f"{at}gate")))
        if self.config["norm_topk_prob"]:
            shares = shares / shares.sum(-1, keepdims=True)
        out = self.mixed(h, shares, best, lambda x, e: self.gated(x, f"{at}experts.{e}"))
        if f"{at}shared_expert_gate.weight" in self.weights:
            gate = self.linear(h, f"{at}shared_expert_gate")
            out = out + self.gated(h, f"{at}shared_expert") / (1 + np.exp(-gate))
        return out

    def gptoss(self, h: Array, at: str) -> Array:
        scores, best = self.chosen(self.linear(h, f"{at}router"))
        w = {name: self.weights[f"{at}experts.{name}"] for name in
             ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")}  # fmt: skip

        def expert(x: Array, e: int) -> Array:
            both = x @ w["gate_up_proj"][e] + w["gate_up_proj_bias"][e]
            gate, up = np.minimum(both[..., ::2], 7), np.clip(both[..., 1::2], -7, 7)
            made = (up + 1) * gate / (1 + np.exp(-1.702 * gate))
            return np.asarray(made @ w["down_proj"][e] + w["down_proj_bias"][e])

        return self.mixed(h, _softmax(scores), best, expert)

    def mixed(self, h: Array, shares: Array, best: NDArray[np.int64], expert: Any) -> Array:
        rows = []
        for token in range(len(h)):
            parts = zip(shares[token], best[token], strict=True)
            rows.append(sum(share * expert(h[token], int(e)) for share, e in parts))
        return np.stack(rows)


def embedding(tiny: Tiny, ids: Sequence[int], pooling: str = "mean") -> Array:
    """The vector of a text, of length 1: Bert, XLM-RoBERTa, Nomic-Bert, or a decoder's.

    `tiny.after` are matrices that it is multiplied with after the pooling.
    """
    decodes = "model.norm.weight" in tiny.weights
    x = _Decoder(tiny, False).hidden(ids) if decodes else _encoded(tiny, ids)
    v = x.mean(0) if pooling == "mean" else x[0] if pooling == "cls" else x[-1]
    for matrix in tiny.after:
        v = matrix @ v
    return np.asarray(v / np.linalg.norm(v))


def _encoded(tiny: Tiny, ids: Sequence[int]) -> Array:
    config = tiny.config
    weights = {name: np.asarray(w, np.float64) for name, w in tiny.weights.items()}
    nomic = config["architectures"][0] == "NomicBertModel"
    epsilon = config.get("layer_norm_eps", config.get("layer_norm_epsilon"))
    heads, n = int(config.get("num_attention_heads") or config["n_head"]), len(ids)

    def norm(x: Array, name: str) -> Array:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    def linear(x: Array, name: str) -> Array:
        return np.asarray(x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0))

    def attend(q: Array, k: Array, v: Array) -> Array:
        dim = q.shape[-1] // heads
        q, k, v = (part.reshape(n, heads, dim) for part in (q, k, v))
        if nomic:
            plain = 1 / config["rotary_emb_base"] ** (np.arange(0, dim, 2) / dim)
            angles = np.outer(np.arange(n), plain)
            q, k = turned(q, angles), turned(k, angles)
        shares = _softmax(np.einsum("qhd,khd->hqk", q, k) / math.sqrt(dim))
        return np.asarray(np.einsum("hqk,khd->qhd", shares, v).reshape(n, -1))

    x = weights["embeddings.word_embeddings.weight"][list(ids)]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    if not nomic:
        first = config["pad_token_id"] + 1 if "Roberta" in config["architectures"][0] else 0
        x = x + weights["embeddings.position_embeddings.weight"][first : first + n]
    x = norm(x, "emb_ln" if nomic else "embeddings.LayerNorm")
    for layer in range(config.get("num_hidden_layers") or config["n_layer"]):
        if nomic:
            at = f"encoder.layers.{layer}."
            a = attend(*np.split(linear(x, f"{at}attn.Wqkv"), 3, -1))
            x = norm(x + linear(a, f"{at}attn.out_proj"), f"{at}norm1")
            h = linear(x, f"{at}mlp.fc11") * _silu(linear(x, f"{at}mlp.fc12"))
            x = norm(x + linear(h, f"{at}mlp.fc2"), f"{at}norm2")
        else:
            at = f"encoder.layer.{layer}."
            a = attend(*(linear(x, f"{at}attention.self.{c}") for c in ("query", "key", "value")))
            x = norm(
                x + linear(a, f"{at}attention.output.dense"), f"{at}attention.output.LayerNorm"
            )
            h = _gelu(linear(x, f"{at}intermediate.dense"))
            x = norm(x + linear(h, f"{at}output.dense"), f"{at}output.LayerNorm")
    return x
