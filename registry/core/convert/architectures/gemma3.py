"""The text part of Gemma 3. Source: spec inference-and-gguf 9.2."""

from collections.abc import Iterator

from registry.core.convert.architectures import gemma, gemma2
from registry.core.convert.config import Config, rope
from registry.core.convert.decoder import Sizes, decoder_keys, head_norms, scaling_keys
from registry.core.convert.family import GELU, PLUS_ONE, SEEING, TEXT_PREFIXES, Family, Rule
from registry.core.convert.plan import KeyValue, array, f32, u32
from registry.core.gguf import Kind

_FULL, _SLIDING = 1_000_000.0, 10_000.0
_PATTERN = 6  # of so many layers the last looks at everything; what the engine assumes
_DEFAULTS = {  # what configs of multimodal checkpoints leave out, since it is the class's default
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
}


def completed(config: Config) -> Config:
    """The config with the defaults of its class filled in."""
    return Config({**_DEFAULTS, **config.values}, config.file)


def keys(config: Config) -> Iterator[KeyValue]:
    """Two bases of rope: one for layers that see everything, one for those with a window."""
    config = completed(config)
    yield from decoder_keys(config)
    head = Sizes.of(config).head
    yield u32("attention.key_length", head)
    yield u32("attention.value_length", head)
    yield from gemma2.softcaps(config)
    yield u32("attention.sliding_window", config.count("sliding_window"))
    yield from pattern_keys(config)
    full = rope(config)
    told = full.settings.has("rope_theta")
    yield f32("rope.freq_base", full.theta if told else _FULL)
    yield f32("rope.freq_base_swa", _sliding_base(config))
    yield from scaling_keys(full)


def _sliding_base(config: Config) -> float:
    if config.has("rope_local_base_freq"):
        return config.number("rope_local_base_freq")
    parameters = config.inner("rope_parameters")
    if parameters is not None and parameters.inner("sliding_attention") is not None:
        return rope(config, "sliding_attention").theta
    return _SLIDING


def pattern_keys(config: Config) -> Iterator[KeyValue]:
    """Which layers have a window, if that is not what the engine assumes anyway."""
    unsaid = {**config.values, "layer_types": None, "sliding_window_pattern": None}
    found = windows(config, _PATTERN)
    if found != windows(Config(unsaid, config.file), _PATTERN):
        yield found


def windows(config: Config, every: int) -> KeyValue:
    """Which layers have a window; of so many the last has none, if nothing else is said."""
    layers = Sizes.of(config).layers
    if config.has("layer_types"):
        kinds = config.texts("layer_types")
        slides = tuple(kind == "sliding_attention" for kind in kinds[:layers])
    else:
        every = config.count("sliding_window_pattern", default=every)
        slides = tuple((layer + 1) % every != 0 for layer in range(layers))
    return array("attention.sliding_window_pattern", Kind.BOOL, slides)


def rules(config: Config) -> tuple[Rule, ...]:
    """Gemma 2's, with norms over each head's query and key."""
    config = completed(config)
    return (*gemma2.rules(config), *head_norms(config, PLUS_ONE))


FAMILY = Family(
    name="gemma3",
    classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    keys=keys,
    rules=rules,
    prefixes=TEXT_PREFIXES,
    dropped=SEEING,
    activations=GELU,
    tied=True,
    cuts_padding=True,
    tokenizer=gemma.TURNS,
)
