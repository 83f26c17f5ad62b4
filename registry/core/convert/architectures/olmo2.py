"""OLMo 2: norms after attention and network, and over all heads. Source: the engine's graph."""

from collections.abc import Iterator

from registry.core.convert.architectures import qwen2
from registry.core.convert.config import Config
from registry.core.convert.decoder import Sizes, attention, ends, gated
from registry.core.convert.family import Family, Rule


def rules(config: Config) -> tuple[Rule, ...]:
    """Norms of queries and keys are as wide as all heads together."""
    return (*ends(config), *attention(config), *gated(config), *_norms(Sizes.of(config)))


def _norms(sizes: Sizes) -> Iterator[Rule]:
    at, to = "layers.#.", "blk.#."
    queries, kept = sizes.heads * sizes.head, sizes.kv_heads * sizes.head
    yield Rule(f"{at}self_attn.q_norm", f"{to}attn_q_norm", (queries,))
    yield Rule(f"{at}self_attn.k_norm", f"{to}attn_k_norm", (kept,))
    yield Rule(f"{at}post_attention_layernorm", f"{to}post_attention_norm", (sizes.width,))
    yield Rule(f"{at}post_feedforward_layernorm", f"{to}post_ffw_norm", (sizes.width,))


FAMILY = Family(name="olmo2", classes=("Olmo2ForCausalLM",), keys=qwen2.keys, rules=rules)
