"""LoRA adapters, as PEFT and MLX write them, to the plan of an adapter GGUF.

An adapter names the modules of a checkpoint, its base here is a GGUF: the base's family says what
the module is called there, how large it is, and whether its rows lie in another order.

Source: spec inference-and-gguf 9.6.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.core.convert.architectures import BY_ARCHITECTURE
from registry.core.convert.config import Config
from registry.core.convert.documents import shown
from registry.core.convert.family import Family, Rule, Whole
from registry.core.convert.files import ADAPTER_CONFIG, Folder
from registry.core.convert.mapping import in_order
from registry.core.convert.plan import (
    Conversion,
    KeyValue,
    Output,
    Pairs,
    Part,
    Plain,
    Step,
    Turned,
    f32,
    text,
    u32,
)
from registry.core.convert.safetensors import Stored
from registry.core.errors import CheckpointInvalid

_PEFT = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
_MLX = re.compile(r"(.+)\.lora_([ab])")
_NUMBER = re.compile(r"(?<=\.)\d{1,6}(?=\.)")
_MAX_RANK = 4096
_KEYS = {  # of the base's GGUF: what the family's rules ask a config for
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "expert_count": "num_local_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "attention.sliding_window": "sliding_window",
    "shortconv.l_cache": "conv_L_cache",
}


@dataclass(frozen=True, slots=True)
class Base:
    """The model that an adapter is for: its GGUF's values and the names of its tensors."""

    values: Mapping[str, Any]
    tensors: frozenset[str]

    @property
    def architecture(self) -> str:
        """The base's architecture."""
        return str(self.values.get("general.architecture", "unknown"))

    @property
    def family(self) -> Family:
        """The family whose rules apply.

        Raises:
            CheckpointInvalid: adapters for this architecture are not converted.
        """
        found = BY_ARCHITECTURE.get(self.architecture)
        if found is None or found.tokenizer.embeds:
            raise CheckpointInvalid(f'unsupported architecture "{shown(self.architecture)}"')
        return found

    def config(self) -> Config:
        """The numbers under their names in a checkpoint's config."""
        named: dict[str, Any] = {
            name: value
            for key, name in _KEYS.items()
            if type(value := self.values.get(f"{self.architecture}.{key}")) is int
        }
        kept = self.values.get(f"{self.architecture}.attention.head_count_kv")
        is_list = isinstance(kept, list | tuple) and kept and all(type(n) is int for n in kept)
        if kept is not None and is_list:  # of each layer; those without do not attend
            named["num_key_value_heads"] = max(kept)
            named["layer_types"] = ["full_attention" if heads else "conv" for heads in kept]
        named["block_auto_adjust_ff_dim"] = False  # the GGUF has the width that came of it
        return Config(named, "the base model")


@dataclass(slots=True)
class _Pair:
    """Both factors of one module's change, `(stored, turned)` each."""

    rule: Rule
    factors: dict[str, tuple[Stored, bool]] = field(default_factory=dict)


def convert_adapter(folder: Folder, tensors: Mapping[str, Stored], base: Base) -> Conversion:
    """The GGUF that an adapter's files become.

    Raises:
        CheckpointInvalid: it cannot be converted, or is not for this base.
    """
    settings = Config(folder.needed_json(ADAPTER_CONFIG), ADAPTER_CONFIG)
    _check_kind(settings)
    family = base.family
    rules = {rule.source: rule for rule in family.rules(base.config())}
    pairs: dict[str, _Pair] = {}
    for name, stored in tensors.items():
        _place(name, stored, rules, family, pairs)
    if not pairs:
        raise CheckpointInvalid("the adapter has no tensors")
    for target in pairs:
        if target not in base.tensors:
            raise CheckpointInvalid(f"the base model has no tensor {target}")
    ranks = {_rank(target, pair) for target, pair in pairs.items()}
    if len(ranks) != 1:
        raise CheckpointInvalid("adapter: modules of different ranks are not supported")
    rank = ranks.pop()
    outputs = [one for target, pair in pairs.items() for one in _outputs(target, pair)]
    return Conversion(tuple(_keys(base, settings, rank, outputs)), tuple(in_order(outputs)))


def _keys(base: Base, settings: Config, rank: int, outputs: list[Output]) -> Iterator[KeyValue]:
    yield text("general.architecture", base.architecture)
    yield text("general.type", "adapter")
    yield text("adapter.type", "lora")
    yield f32("adapter.lora.alpha", _alpha(settings, rank))
    yield u32("general.quantization_version", 2)
    yield u32("general.file_type", 1 if all(one.type == "F16" for one in outputs) else 0)


def _check_kind(settings: Config) -> None:
    """Refuse what an adapter GGUF cannot say."""
    kind = settings.text("peft_type", "fine_tune_type", default="lora")
    if kind.lower() != "lora":
        raise CheckpointInvalid(f"{settings.file}: {shown(kind)} adapters are not supported")
    for name in ("use_dora", "fan_in_fan_out"):
        if settings.flag(name, False):
            raise CheckpointInvalid(f"{settings.file}: {name} is not supported")
    for name in ("modules_to_save", "rank_pattern", "alpha_pattern", "target_parameters"):
        if settings.values.get(name):
            raise CheckpointInvalid(f"{settings.file}: {name} is not supported")


def _alpha(settings: Config, rank: int) -> float:
    """The engine divides it by the rank; other ways of scaling are brought to that."""
    mlx = settings.inner("lora_parameters")
    if mlx is not None:
        if mlx.has("alpha"):
            return mlx.number("alpha")
        return mlx.number("scale") * rank
    alpha = settings.number("lora_alpha")
    return alpha * rank**0.5 if settings.flag("use_rslora", False) else alpha


def _place(
    name: str,
    stored: Stored,
    rules: Mapping[str, Rule],
    family: Family,
    pairs: dict[str, _Pair],
) -> None:
    """Note a factor with the tensor that it changes."""
    peft, mlx = _PEFT.fullmatch(name), _MLX.fullmatch(name)
    found = peft or mlx
    if found is None:
        raise CheckpointInvalid(f"{shown(stored.file)}: unmapped tensor {shown(name)}")
    module, factor = found[1], found[2].lower()
    prefix = next((start for start in family.prefixes if module.startswith(start)), "")
    module = f".{module.removeprefix(prefix)}."
    rule = rules.get(_NUMBER.sub("#", module).strip("."))
    if rule is None or len(rule.shape) != 2 or rule.pick != Whole() or rule.stacks:
        raise CheckpointInvalid(f"{shown(stored.file)}: unmapped tensor {shown(name)}")
    if stored.dtype not in {"F32", "F16", "BF16"} or len(stored.shape) != 2:
        raise CheckpointInvalid(
            f"{shown(stored.file)}: tensor {shown(name)} is no matrix of numbers"
        )
    numbers = _NUMBER.findall(module)
    target = rule.target.replace("#", numbers[0] if numbers else "")
    pair = pairs.setdefault(f"{target}.weight", _Pair(rule))
    if factor in pair.factors:
        raise CheckpointInvalid(f"{shown(stored.file)}: tensor {shown(name)} is there twice")
    pair.factors[factor] = (stored, peft is None)


def _shape(pair: _Pair, factor: str) -> tuple[int, int]:
    """Rows and columns of a factor as PEFT has them."""
    stored, turned = pair.factors[factor]
    rows, columns = stored.shape
    return (columns, rows) if turned else (rows, columns)


def _rank(target: str, pair: _Pair) -> int:
    """The rank of a pair that fits the tensor it changes."""
    if len(pair.factors) != 2:
        raise CheckpointInvalid(f"adapter: {target} has one factor only")
    (rank, columns), (rows, other) = _shape(pair, "a"), _shape(pair, "b")
    high, wide = pair.rule.shape
    fits = rank == other and wide == columns and high in {None, rows}
    if not fits or not 1 <= rank <= _MAX_RANK:
        raise CheckpointInvalid(
            f"adapter: {target} is {high or 'n'}×{wide} in the base model, "
            f"the adapter's factors are {rows}×{other} and {rank}×{columns}"
        )
    return rank


def _outputs(target: str, pair: _Pair) -> Iterator[Output]:
    for factor in ("a", "b"):
        stored, turned = pair.factors[factor]
        rows, columns = _shape(pair, factor)
        steps: tuple[Step, ...] = ()
        if factor == "b":  # a row of B belongs to a row of the weight
            steps = tuple(step for step in pair.rule.steps if isinstance(step, Pairs))
        part = Part(stored, 0, rows, 1, Turned(0) if turned else Plain(), steps)
        kind = "F16" if stored.dtype == "F16" else "F32"
        yield Output(f"{target}.lora_{factor}", (columns, rows), kind, (part,))
