"""A model's checkpoint to the plan of its GGUF.

Source: spec inference-and-gguf 8, 9.
"""

from collections.abc import Iterator, Mapping

from registry.core.convert.architectures import family
from registry.core.convert.companions import pair_up
from registry.core.convert.config import Config
from registry.core.convert.documents import shown
from registry.core.convert.family import Family
from registry.core.convert.files import CONFIG, Folder
from registry.core.convert.mapping import Counts, cut_rows, in_order, outputs
from registry.core.convert.plan import Conversion, KeyValue, Output, Scaled, text, u32
from registry.core.convert.safetensors import Stored
from registry.core.convert.tokenizer import Vocabulary, options, vocabulary
from registry.core.errors import CheckpointInvalid

FILE_TYPE_F16, FILE_TYPE_MXFP4 = 1, 38
_QUANTIZATION_VERSION = 2
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_POOLING_MEAN, _POOLING_CLS, _POOLING_LAST = 1, 2, 3


def convert_model(folder: Folder, tensors: Mapping[str, Stored]) -> Conversion:
    """The GGUF that a model's files become. Keys come in the engine's usual order.

    Raises:
        CheckpointInvalid: the model cannot be converted; the message says which file and why.
    """
    values = folder.needed_json(CONFIG)
    whole = Config(values)
    kind = family(whole.architecture)
    config = Config.of(values)
    keys = list(kind.keys(config))
    counts = {name: entry.value for name, entry in keys if isinstance(entry.value, int)}
    _check_activation(kind, config)
    rules = list(kind.rules(config))
    words = vocabulary(folder, kind.tokenizer)
    found = pair_up(tensors, config)
    counted = Counts(counts["block_count"], counts.get("expert_count", 0))
    made, warnings = outputs(kind, rules, found, counted)
    made = _without_tied(kind, config, made)
    made = _fitted(kind, config, words, made)
    options(folder, config.values, words, kind.tokenizer)
    made += kind.constants(config)
    pooling = _pooling(folder)
    _check_dense(folder, kind)
    keys += _dense_keys(made)
    if pooling is None and kind.tokenizer.embeds:
        pooling = _POOLING_CLS
        warnings.append("no pooling is stated: the first token's vector is taken")
    if pooling is not None:  # a decoder may be made for embeddings, too
        keys.append(u32("pooling_type", pooling))
    if kind.name == "llama":
        keys.append(u32("vocab_size", len(words.tokens)))
    if any(isinstance(tensor.view, Scaled) for tensor in found):
        keys.append(text("source_quantization", "hf_fp8"))
    return Conversion(
        keys=tuple(_all_keys(kind, keys, words, made)),
        tensors=tuple(in_order(made)),
        warnings=(*warnings, *words.warnings),
    )


def _all_keys(
    kind: Family, keys: list[KeyValue], words: Vocabulary, made: list[Output]
) -> Iterator[KeyValue]:
    yield text("general.architecture", kind.name)
    for name, entry in keys:
        if name == "source_quantization":
            yield name, entry
        else:
            yield f"{kind.name}.{name}", entry
    yield from words.entries()
    packed = any(tensor.type == "MXFP4" for tensor in made)
    yield u32("general.quantization_version", _QUANTIZATION_VERSION)
    yield u32("general.file_type", FILE_TYPE_MXFP4 if packed else FILE_TYPE_F16)


def _check_activation(kind: Family, config: Config) -> None:
    """The engine's graphs have one function each, which a config may not share.

    Raises:
        CheckpointInvalid: it has another.
    """
    name = next(iter(sorted(kind.activations)))
    told = config.text("hidden_activation", "hidden_act", default=name)
    if told not in kind.activations:
        raise CheckpointInvalid(f"{config.file}: hidden_act {shown(told)} is not supported")


def _check_dense(folder: Folder, kind: Family) -> None:
    """Layers after the pooling: only some families have them in their graphs, and plain ones.

    Raises:
        CheckpointInvalid: there is one that would be left out, or does more than multiply.
    """
    for name in folder.contents:
        if not name.endswith("_Dense/config.json"):
            continue
        values = folder.json(name) or {}
        plain = str(values.get("activation_function", "Identity")).endswith("Identity")
        if not kind.has_dense or not plain or values.get("bias") is True:
            raise CheckpointInvalid(f"{name}: this layer after the pooling is not supported")


def _dense_keys(made: list[Output]) -> list[KeyValue]:
    """The sizes of the layers after the pooling."""
    return [
        u32(f"{name}_feat_{end}", tensor.shape[place])
        for tensor in made
        for name in ("dense_2", "dense_3")
        if tensor.name == f"{name}.weight"
        for place, end in enumerate(("in", "out"))
    ]


def _without_tied(kind: Family, config: Config, made: list[Output]) -> list[Output]:
    """Drop an output matrix that is the embedding again; without one it has to be that."""
    present = any(tensor.name == _OUTPUT for tensor in made)
    told = config.values.get("tie_word_embeddings")
    tied = kind.tied if told is None else config.flag("tie_word_embeddings", kind.tied)
    if tied:
        return [tensor for tensor in made if tensor.name != _OUTPUT]
    if not present and told is False and not kind.tokenizer.embeds:
        raise CheckpointInvalid("tensor lm_head.weight is missing")
    return made


def _fitted(kind: Family, config: Config, words: Vocabulary, made: list[Output]) -> list[Output]:
    """Make as many tokens as the embedding has rows, or cut the rows where a family does that.

    Raises:
        CheckpointInvalid: the sizes cannot be brought together.
    """
    rows = next(tensor.shape[-1] for tensor in made if tensor.name == _EMBEDDING)
    stated = config.count("vocab_size", default=rows)
    if stated > rows:
        raise CheckpointInvalid(
            f"config.json: vocab_size is {stated}, the embedding has {rows} rows"
        )
    tokens = len(words.tokens)
    if tokens > rows:
        raise CheckpointInvalid(f"the tokenizer has {tokens} tokens, the embedding {rows} rows")
    for tensor in made:
        if tensor.name == _OUTPUT and tensor.shape[-1] != rows:
            raise CheckpointInvalid(
                f"lm_head.weight has {tensor.shape[-1]} rows, the embedding has {rows}"
            )
    if kind.cuts_padding and tokens < rows:
        ends = {_EMBEDDING, _OUTPUT}
        return [cut_rows(one, tokens) if one.name in ends else one for one in made]
    words.pad(rows)
    return made


def _pooling(folder: Folder) -> int | None:
    """How a text's vectors become one, if that is stated.

    Raises:
        CheckpointInvalid: in a way that the engine does not know.
    """
    name = next(
        (name for name in sorted(folder.contents) if name.endswith("_Pooling/config.json")), ""
    )
    values = folder.json(name) if name else None
    if values is None:
        return None
    for key, pooling in (
        ("pooling_mode_mean_tokens", _POOLING_MEAN),
        ("pooling_mode_cls_token", _POOLING_CLS),
        ("pooling_mode_lasttoken", _POOLING_LAST),
    ):
        if values.get(key) is True:
            return pooling
    raise CheckpointInvalid(f"{name}: this pooling is not supported")
