"""The type of each tensor of a quantized file, by a table of rules.

Most tensors get the target's base type. Those that matter more get a better one, depending on what
they do, on the layer, on the heads and experts of the model. A row that is no whole number of
blocks falls back to a type with smaller blocks.

Source: spec inference-and-gguf 7.3; spec ollama-api 6.7 for the families with rules of their own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from registry.core.facts import Value
from registry.core.ggml import tensor_type
from registry.core.gguf import Tensor
from registry.core.quantize.targets import Target

_LAYER = re.compile(r"blk\.(\d+)\.")
_EMBEDDED = ("a.", "mm.", "mtp.", "s.", "v.")  # of another model inside the file
_NO_WEIGHTS = frozenset({"I8", "I16", "I32", "I64", "F64"})
_KEPT_NAMES = frozenset({"position_embd.weight", "token_types.weight"})
_KEPT_PARTS = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel"
    r"|per_layer_model_proj|ssm_conv1d|shortconv\.conv\.weight|indexer\.[kq]_proj\.weight"
    r"|time_mix_(?:first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\.weight"
    r"|attn_rel_b\.weight|\.position_embd|sam\.(?:pos_embd|neck\.|net_)|\.rel_pos"
    r"|\.patch_embd|\.patch_merger|a\.rvq\.codebook|mm\.a\.code_embd"
)
_ROLES = (
    (re.compile(r"^output\.weight$"), "output"),
    (re.compile(r"^(?:per_layer_)?token_embd\.weight$"), "embedding"),
    (re.compile(r"attn_(?:qkv|kv_b|v)\.weight"), "value"),
    (re.compile(r"attn_k\.weight"), "key"),
    (re.compile(r"attn_q\.weight"), "query"),
    (re.compile(r"attn_output\.weight"), "attention output"),
    (re.compile(r"ffn_(?:up|gate)"), "up"),
    (re.compile(r"ffn_down"), "down"),
)
_FALLBACK = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "IQ3_S": "IQ4_NL",
    "IQ4_XS": "IQ4_NL",
}
_IMPROVED_WITH_EXPERTS = frozenset(
    ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ3_M")
)
_GLM_EMBEDDINGS = re.compile(r"^(?:token_embd|output)\.weight$"), "F16"
_FAMILY_RULES = {  # of K-quants
    "qwen35": (re.compile(r"^blk\.\d+\.nextn\.eh_proj\.weight$"), "Q8_0"),
    "qwen35moe": (re.compile(r"^blk\.\d+\.nextn\.eh_proj\.weight$"), "Q8_0"),
    "gemma3n": (re.compile(r"^per_layer_token_embd\.weight$"), "F16"),
    "deepseek2": (re.compile(r"attn_(?:k_b|q_a|q_b|v_b|kv_a_mqa)\.weight$"), "Q8_0"),
    "glmocr": _GLM_EMBEDDINGS,
    "glm4": _GLM_EMBEDDINGS,
}


@dataclass(frozen=True, slots=True)
class Hyper:
    """What the rules ask about a model."""

    architecture: str
    layers: int = 0
    heads: int = 0
    kv_heads: int = 0
    experts: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Self:
        """Read a file's values. Of those given per layer the first counts; junk counts as 0."""
        architecture = values.get("general.architecture")
        prefix = architecture if isinstance(architecture, str) else ""

        def count(key: str) -> int:
            value = values.get(f"{prefix}.{key}")
            if isinstance(value, tuple):
                value = value[0] if value else 0
            return value if isinstance(value, int) and value > 0 else 0

        heads = count("attention.head_count")
        return cls(
            prefix,
            count("block_count"),
            heads,
            count("attention.head_count_kv") or heads,
            count("expert_count"),
        )

    @property
    def sharing(self) -> int:
        """How many heads share one key and value."""
        return self.heads // self.kv_heads if self.kv_heads else 0

    @property
    def is_70b(self) -> bool:
        """A llama of 80 layers whose heads share."""
        return self.architecture == "llama" and self.layers == 80 and self.sharing != 1


@dataclass(slots=True)
class _Course:
    """How far the rules have come through a file."""

    hyper: Hyper
    target: Target
    tied: bool
    values: int
    seen: dict[str, int] = field(default_factory=dict)

    def place(self, tensor: Tensor, role: str) -> tuple[int, int]:
        """Which of how many tensors of its role it is.

        In a model of experts their layers are what counts: they come in no certain order.
        """
        index = self.seen.get(role, 0)
        self.seen[role] = index + 1
        if role == "value":
            return index, self.values
        named = _LAYER.match(tensor.name) if self.hyper.experts > 1 else None
        return (int(named[1]) if named else index), self.hyper.layers


def in_file_order(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Those of no layer first, then layer by layer; by name within."""

    def key(tensor: Tensor) -> tuple[int, bytes]:
        layer = _LAYER.match(tensor.name)
        return int(layer[1]) if layer else -1, tensor.name.encode()

    return sorted(tensors, key=key)


def plan(tensors: Sequence[Tensor], hyper: Hyper, target: Target) -> list[Tensor]:
    """The tensors of the quantized file, in its order, each with its new type."""
    ordered = in_file_order(tensors)
    roles = [_role(tensor) for tensor in ordered]
    course = _Course(hyper, target, "output" not in roles, roles.count("value"))
    return [
        tensor._replace(type=_chosen(tensor, role, course))
        for tensor, role in zip(ordered, roles, strict=True)
    ]


def _role(tensor: Tensor) -> str:
    return next((role for pattern, role in _ROLES if pattern.search(tensor.name)), "")


def may_change(tensor: Tensor) -> bool:
    """Whether a tensor is quantized at all: norms, biases, small and odd ones are not."""
    name = tensor.name
    return (
        any(size > 1 for size in tensor.shape[1:])
        and name.endswith("weight")
        and name not in _KEPT_NAMES
        and not name.startswith(_EMBEDDED)
        and _KEPT_PARTS.search(name) is None
        and tensor.type not in _NO_WEIGHTS
    )


def _chosen(tensor: Tensor, role: str, course: _Course) -> str:
    if not may_change(tensor):
        return tensor.type
    target = course.target
    if not target.is_mixture:
        return target.base
    chosen = _of_family(tensor, course) or _by_role(tensor, role, course)
    return _fitting(chosen, tensor.shape[0])


def _of_family(tensor: Tensor, course: _Course) -> str:
    """The type that a family's own rule gives, empty if it has none."""
    rule = _FAMILY_RULES.get(course.hyper.architecture)
    if rule is None or not course.target.base.endswith("_K"):
        return ""
    pattern, kind = rule
    return kind if pattern.search(tensor.name) else ""


def _by_role(tensor: Tensor, role: str, course: _Course) -> str:
    base = course.target.base
    if role == "output" or (role == "embedding" and course.tied):
        if base == "Q8_0" or tensor.shape[0] % tensor_type(base).block:
            return "Q8_0"
        return "Q6_K"
    rule = _RULES.get(role)
    return base if rule is None else rule(course, *course.place(tensor, role)) or base


def _fitting(kind: str, row: int) -> str:
    """`kind`, or the best type whose blocks fill rows of that length."""
    if row % tensor_type(kind).block == 0:
        return kind
    smaller = _FALLBACK.get(kind, "F16")
    return smaller if row % tensor_type(smaller).block == 0 else "F16"


def _more(index: int, count: int) -> bool:
    """The first and last eighth, and every third in between, are worth more bits."""
    eighth = count // 8
    return index < eighth or index >= 7 * count // 8 or (index - eighth) % 3 == 2


def _value(course: _Course, index: int, count: int) -> str:
    hyper, base = course.hyper, course.target.base
    chosen = base
    match course.target.name:
        case "Q2_K":
            chosen = "Q4_K" if hyper.sharing >= 4 else "Q3_K"
        case "Q3_K_M":
            chosen = "Q5_K" if index < 2 else "Q4_K"
        case "Q3_K_L":
            chosen = "Q5_K"
        case "IQ3_M":
            chosen = "Q4_K"
        case "IQ3_S" if hyper.sharing >= 4:
            chosen = "Q4_K"
        case "IQ4_NL" | "IQ4_XS" if hyper.sharing >= 4:
            chosen = "Q5_K"
        case "Q4_K_M" | "Q5_K_M" if _more(index, count):
            chosen = "Q6_K"
        case "Q4_K_S" if index < 4:
            chosen = "Q5_K"
    if hyper.is_70b and chosen in {"Q3_K", "Q4_K"}:
        chosen = "Q5_K"
    return "Q8_0" if hyper.experts == 8 else chosen


def _key(course: _Course, _index: int, _count: int) -> str:
    return "Q8_0" if course.hyper.experts == 8 else ""


def _down(course: _Course, index: int, count: int) -> str:
    name = course.target.name
    if course.hyper.architecture == "falcon" and name in _FALCON:
        return _FALCON[name](index, count)
    match name:
        case "Q2_K":
            return "Q3_K"
        case "Q3_K_M":
            return "Q5_K" if index < count // 16 else "Q4_K"
        case "Q3_K_L":
            return "Q5_K"
        case "Q4_K_M" | "Q5_K_M" if _more(index, count):
            return "Q6_K"
        case "IQ3_M" if course.hyper.experts == 8 and _more(index, count):
            return "Q4_K"
    return _FIRST_EIGHTH.get(name, "") if index < count // 8 else ""


_FIRST_EIGHTH = {"Q4_K_S": "Q5_K", "IQ4_NL": "Q5_K", "IQ4_XS": "Q5_K", "IQ3_M": "Q4_K"}


def _falcon_medium(first: str, more: str, rest: str) -> Callable[[int, int], str]:
    def chosen(index: int, count: int) -> str:
        if index < count // 16:
            return first
        return more if _more(index, count) else rest

    return chosen


_FALCON: dict[str, Callable[[int, int], str]] = {
    "Q3_K_M": _falcon_medium("Q5_K", "Q4_K", "Q3_K"),
    "Q3_K_L": lambda _index, _count: "Q4_K",
    "Q4_K_M": _falcon_medium("Q6_K", "Q5_K", "Q4_K"),
    "Q4_K_S": lambda _index, _count: "",
}


def _attention_output(course: _Course, _index: int, _count: int) -> str:
    name = course.target.name
    if course.hyper.architecture == "falcon":
        return "Q4_K" if name == "Q3_K_L" else ""
    if course.hyper.experts == 8:
        return "Q5_K" if name in _IMPROVED_WITH_EXPERTS else ""
    return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}.get(name, "")


_Rule = Callable[[_Course, int, int], str]
_RULES: dict[str, _Rule] = {
    "value": _value,
    "key": _key,
    "down": _down,
    "attention output": _attention_output,
}
