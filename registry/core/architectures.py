"""Names of architectures that engines know: those of llama.cpp, and Ollama's own.

A model of another one is kept all the same: a library stores what somebody else's engine may run.

Source: llama.cpp src/llama-arch.cpp (mid 2026), Ollama model/models.
"""

KNOWN = frozenset(
    (
        "afmoe", "apertus", "arcee", "arctic", "arwkv7", "baichuan", "bailingmoe",
        "bailingmoe2", "bailingmoe3", "bert", "bitnet", "bloom", "chameleon", "chatglm", "clip",
        "codeshell", "cogvlm", "cohere2", "cohere2moe", "command-r", "dbrx", "deci", "deepseek",
        "deepseek2", "deepseek2-ocr", "deepseek32", "deepseek4", "deepseekocr", "dflash",
        "dots1", "dream", "eagle3", "ernie4_5", "ernie4_5-moe", "eurobert", "exaone",
        "exaone-moe", "exaone4", "falcon", "falcon-h1", "gemma", "gemma-embedding", "gemma2",
        "gemma3", "gemma3n", "gemma4", "gemma4-assistant", "glm-dsa", "glm4", "glm4moe",
        "glm4moelite", "glmocr", "gpt-oss", "gpt2", "gptj", "gptneox", "gptoss", "granite",
        "granitehybrid", "granitemoe", "grok", "grovemoe", "hunyuan-dense", "hunyuan-moe",
        "hunyuan_vl", "hy_v3", "internlm2", "jais", "jais2", "jamba", "jina-bert-v2",
        "jina-bert-v3", "kimi-linear", "laguna", "lfm2", "lfm2moe", "lfm2vl", "llada",
        "llada-moe", "llama", "llama-embed", "llama4", "maincoder", "mamba", "mamba2", "mellum",
        "mimo2", "minicpm", "minicpm3", "minimax-m2", "mistral3", "mistral4", "mllama",
        "modern-bert", "mpt", "nemotron", "nemotron_h", "nemotron_h_moe", "nemotron_h_omni",
        "neo-bert", "nomic-bert", "nomic-bert-moe", "olmo", "olmo2", "olmo3", "olmoe",
        "openelm", "orion", "paddleocr", "pangu-embedded", "phi2", "phi3", "phimoe", "plamo",
        "plamo2", "plamo3", "plm", "qwen", "qwen2", "qwen25vl", "qwen2moe", "qwen2vl", "qwen3",
        "qwen35", "qwen35moe", "qwen3moe", "qwen3next", "qwen3vl", "qwen3vlmoe", "refact",
        "rnd1", "rwkv6", "rwkv6qwen2", "rwkv7", "seed_oss", "smallthinker", "smollm3",
        "stablelm", "starcoder", "starcoder2", "step35", "t5", "t5encoder", "talkie",
        "wavtokenizer-dec", "xverse",
    )
)  # fmt: skip


def warning(architecture: str) -> str:
    """A remark about an architecture that no engine is known to have; empty for the others."""
    if architecture in KNOWN:
        return ""
    name = architecture if architecture.isprintable() else ascii(architecture)
    return f'unknown architecture "{name[:60]}": kept as it is, an engine may not run it'
