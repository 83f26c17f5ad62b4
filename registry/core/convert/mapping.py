"""Stored tensors to those of the GGUF, by a family's table of rules.

Source: spec inference-and-gguf 8.4, 8.5, 9.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from registry.core.convert.companions import Found, check_floats
from registry.core.convert.documents import shown
from registry.core.convert.family import Alternate, Cut, Family, Half, Pick, Rule
from registry.core.convert.plan import Columns, Output, Packed4, Part, Turned, View
from registry.core.errors import CheckpointInvalid

_NUMBER = re.compile(r"(?<=\.)(\d{1,6})(?=\.|$)")
_MAX_MATRIX = 1 << 28
"""Elements of a matrix that has to be transposed, which is done in memory."""

_KEPT_EXACT = (
    "ffn_gate_inp",
    "_norm",
    "rope_freqs",
    "rope_factors",
    "attn_sinks",
    "shortconv.conv",
)
_KEPT_NAMES = frozenset({"position_embd.weight", "token_types.weight"})


@dataclass(frozen=True, slots=True)
class Counts:
    """How many layers and experts the config tells of."""

    layers: int
    experts: int


@dataclass(slots=True)
class _Target:
    """A tensor of the GGUF while its sources are collected."""

    rule: Rule
    pattern: str  # the rule's target with `.weight` or `.bias`
    layer: int | None
    found: dict[int, Found] = field(default_factory=dict)  # by expert


def outputs(
    family: Family, rules: Iterable[Rule], tensors: Sequence[Found], counts: Counts
) -> tuple[list[Output], list[str]]:
    """The tensors of the GGUF, and the warnings about those that are left out.

    Raises:
        CheckpointInvalid: a tensor without a rule, one that is missing, or one of a wrong shape.
    """
    rules = tuple(rules)
    table: dict[str, list[Rule]] = {}
    for rule in rules:
        table.setdefault(rule.source, []).append(rule)
    targets: dict[str, _Target] = {}
    dropped: dict[str, int] = {}
    for tensor in tensors:
        prefix = next((start for start in family.dropped if tensor.name.startswith(start)), "")
        if prefix:
            dropped[prefix] = dropped.get(prefix, 0) + 1
        elif not any(part in tensor.name for part in family.ignored):
            _place(tensor, table, family.prefixes, targets, counts.layers)
    _check_complete(rules, targets, counts.layers)
    warnings = [
        f"{count} tensors {prefix}… are left out: only the text model is converted"
        for prefix, count in dropped.items()
    ]
    return [_output(name, target, counts.experts) for name, target in targets.items()], warnings


def _place(
    tensor: Found,
    table: Mapping[str, list[Rule]],
    prefixes: tuple[str, ...],
    targets: dict[str, _Target],
    layers: int,
) -> None:
    """Note the tensor with every target it is a source of."""
    prefix = next((start for start in prefixes if tensor.name.startswith(start)), "")
    name = _old_norm(tensor.name.removeprefix(prefix))
    pattern = _NUMBER.sub("#", name)
    numbers = [int(digits) for digits in _NUMBER.findall(name)]
    stem, _, suffix = pattern.rpartition(".")
    whole = table.get(pattern)
    fitting = [
        rule
        for rule in whole or table.get(stem, [])
        if rule.packed == isinstance(tensor.view, Packed4)
    ]
    if not fitting or (whole is None and suffix not in {"weight", "bias"}):
        where = shown(tensor.stored.file)
        raise CheckpointInvalid(f"{where}: unmapped tensor {shown(tensor.name)}")
    check_floats(tensor)
    if numbers and numbers[0] >= layers:
        raise CheckpointInvalid(f"tensor {shown(tensor.name)}: the model has {layers} layers")
    for rule in fitting:
        target = rule.target if whole else f"{rule.target}.{suffix}"
        layer = numbers[0] if numbers else None
        name = target if layer is None else target.replace("#", str(layer), 1)
        entry = targets.setdefault(name, _Target(rule, target, layer))
        expert = numbers[1] if rule.stacks else 0
        if entry.rule is not rule or expert in entry.found:
            raise CheckpointInvalid(f"tensor {shown(tensor.name)}: {name} has another source too")
        entry.found[expert] = tensor


def _old_norm(name: str) -> str:
    """Norms of checkpoints that went through TensorFlow have these names."""
    if name.endswith(".gamma"):
        return name.removesuffix("gamma") + "weight"
    return name.removesuffix("beta") + "bias" if name.endswith(".beta") else name


def _check_complete(rules: Sequence[Rule], targets: Mapping[str, _Target], layers: int) -> None:
    """Every layer must have what the first has, and every rule that is not optional its tensor."""
    by_pattern: dict[str, set[int | None]] = {}
    for target in targets.values():
        by_pattern.setdefault(target.pattern, set()).add(target.layer)
        if target.rule.layers is not None and target.layer not in target.rule.layers:
            name = shown(next(iter(target.found.values())).name)
            raise CheckpointInvalid(f"tensor {name}: its layer is of another kind")
    by_rule = {target.pattern: target.rule.layers for target in targets.values()}
    for rule in rules:
        pattern = (
            rule.target if rule.target.endswith((".weight", ".bias")) else f"{rule.target}.weight"
        )
        if not rule.optional and pattern not in by_pattern and rule.layers != frozenset():
            raise CheckpointInvalid(f"tensor {rule.source} is missing".replace("#", "0"))
    for pattern, present in by_pattern.items():
        if None in present:
            continue
        for layer in sorted(by_rule[pattern] or range(layers)):
            if layer not in present:
                raise CheckpointInvalid(f"layer {layer} has no tensor for {pattern.split('.')[2]}")


def _output(name: str, target: _Target, experts: int) -> Output:
    found = [target.found[index] for index in sorted(target.found)]
    if target.rule.stacks and sorted(target.found) != list(range(len(found))):
        raise CheckpointInvalid(f"{name}: the experts are not numbered from 0 on")
    if target.rule.stacks and len(found) != experts:
        raise CheckpointInvalid(f"{name} has {len(found)} experts, config.json says {experts}")
    first = found[0]
    for tensor in found:
        _check_shape(tensor, target.rule, name)
        if tensor.shape != first.shape or tensor.type != first.type:
            raise CheckpointInvalid(
                f"tensor {shown(tensor.name)} has another shape or type than {shown(first.name)}"
            )
    parts = tuple(part for tensor in found for part in _parts(target.rule, tensor))
    rows, columns = _matrix(target.rule, first)
    shape = _shape(target.rule, first, rows, columns)
    if target.rule.stacks:
        shape = (len(found), *shape)
    return Output(name, shape[::-1], output_type(name, first.type, shape), parts)


def _check_shape(tensor: Found, rule: Rule, name: str) -> None:
    wanted = rule.shape
    if name.endswith(".bias") and not rule.target.endswith(".bias"):
        wanted = wanted[:1]
    fits = len(wanted) == len(tensor.shape) and all(
        size > 0 and (want is None or want == size)
        for want, size in zip(wanted, tensor.shape, strict=True)
    )
    if not fits:
        told = "×".join("n" if size is None else str(size) for size in wanted)
        raise CheckpointInvalid(
            f"{shown(tensor.stored.file)}: tensor {shown(tensor.name)} has the shape "
            f"{list(tensor.shape)}, config.json implies {told}"
        )


def _matrix(rule: Rule, tensor: Found) -> tuple[int, int]:
    """Rows and columns of each of a tensor's matrices as they are read; a vector is one row."""
    shape = tensor.shape
    rows, columns = (shape[-2] if len(shape) > 1 else 1), shape[-1]
    return (columns, rows) if rule.turned else (rows, columns)


def _picked(pick: Pick, rows: int, name: str) -> tuple[int, int, int]:
    """The rows of a matrix that are wanted: first, end, step."""
    match pick:
        case Cut(first, count):
            stop = rows if count is None else first + count
            if not first < stop <= rows:
                raise CheckpointInvalid(f"tensor {shown(name)} has only {rows} rows")
            return first, stop, 1
        case Half(which):
            half = rows // 2
            return which * half, (which + 1) * half, 1
        case Alternate(which):
            return which, rows, 2
    return 0, rows, 1


def _shape(rule: Rule, tensor: Found, rows: int, columns: int) -> tuple[int, ...]:
    """The shape after picking rows and columns, row-major."""
    start, stop, step = _picked(rule.pick, rows, tensor.name)
    for one in rule.steps:
        if isinstance(one, Columns):
            columns = len(range(one.start, columns, one.step))
    taken = len(range(start, stop, step))
    if len(tensor.shape) == 1 or (rule.flat and taken == 1):
        return (*tensor.shape[:-2], columns)
    return (*tensor.shape[:-2], taken, columns)


def _parts(rule: Rule, tensor: Found) -> list[Part]:
    """One part for the whole tensor if its rows lie evenly, else one for each matrix."""
    rows, columns = _matrix(rule, tensor)
    start, stop, step = _picked(rule.pick, rows, tensor.name)
    matrices = prod(tensor.shape[:-2])
    if rule.turned:
        if rows * columns > _MAX_MATRIX:
            raise CheckpointInvalid(f"tensor {shown(tensor.name)} is too large to be transposed")
        views: list[View] = [Turned(matrix) for matrix in range(matrices)]
        return [Part(tensor.stored, start, stop, step, view, rule.steps) for view in views]
    if matrices == 1 or (rows % step == 0 and (start < step and stop == rows)):
        end = (matrices - 1) * rows + stop
        return [Part(tensor.stored, start, end, step, tensor.view, rule.steps)]
    return [
        Part(tensor.stored, at + start, at + stop, step, tensor.view, rule.steps)
        for at in range(0, matrices * rows, rows)
    ]


def output_type(name: str, source: str, shape: tuple[int, ...]) -> str:
    """The type that a tensor is stored as: small ones keep every bit, matrices 16."""
    if source == "MXFP4":
        return source
    exact = (
        len(shape) == 1
        or not name.endswith(".weight")
        or name in _KEPT_NAMES
        or any(part in name for part in _KEPT_EXACT)
    )
    if exact:
        return "F32"
    return "BF16" if source == "BF16" else "F16"


def cut_rows(output: Output, rows: int) -> Output:
    """The first `rows` rows of a matrix that has one part."""
    part = output.parts[0]
    return replace(
        output,
        shape=(output.shape[0], rows),
        parts=(replace(part, stop=part.start + rows),),
    )


def in_order(tensors: Iterable[Output]) -> list[Output]:
    """Those outside of layers first, then layer by layer; each group by name.

    The order of llama.cpp's own tools, so that quantizing later leaves it as it is.
    """
    return sorted(tensors, key=lambda tensor: (_layer(tensor.name), tensor.name))


def _layer(name: str) -> int:
    parts = name.split(".", 2)
    return int(parts[1]) if parts[0] == "blk" else -1
