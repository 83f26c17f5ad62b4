"""Which of the engine's pre-tokenizers a tokenizer.json describes.

The engine knows them by name and has their expressions built in. A file names none, so it is told
by the digest of its expressions, which does not depend on the vocabulary: fine-tunes keep it.

Source: spec inference-and-gguf 9.4; digests as recorded in tests/data/pre-tokenizers.json.
"""

import hashlib

from registry.core.convert.tokenizer.vocabulary import TokenizerJson

KNOWN = {
    "d98f9631be1e9607a9848c26c1f9eac1aa9fc21ac6ba82a2fc0741af9780a48f": "llama-bpe",
    "1ff7f41064896984db5d1bb6ff64fa4bc29007d08c1b439e505b7392777a319e": "qwen2",
    "00431aed57e696b747435f734d1e3b9b1bfd931a121fb5cac7129e97c181e9ba": "qwen35",
    "21cde974d587f0d54dc8d56b183cc1e6239600172035c68fbd6d4b9f8da0576e": "deepseek-coder",
    "2d1b8dc11e89af71459b36004f698ab3693f59fd84f63e8ec2b49564ab857420": "gpt-4o",
    "1d64a9a8eaf9f1bd80331984d81fdd514e7feafe8df83a525dd31472f275699a": "tekken",
    "03df5c5863ad70781dcfdef491ead25140f895fe8010964be0daefe27be32b02": "deepseek-llm",
    "b92c0824a58e1d8dc3221cf3e12c433c3a86f57e46d57229993489f0798e7702": "laguna",
}
DEFAULT = "default"


def pre_tokenizer(document: TokenizerJson) -> tuple[str, str]:
    """The engine's name of the pre-tokenizer, and a warning if it does not know it."""
    steps = document.steps("pre_tokenizer", "pretokenizers")
    kinds = [step.get("type") for step in steps]
    digest, seen = hashlib.sha256(), False
    for step in steps:
        pattern = step.get("pattern")
        expression = pattern.get("Regex") if isinstance(pattern, dict) else None
        if step.get("type") == "Split" and isinstance(expression, str):
            digest.update(expression.encode(errors="surrogatepass"))
            seen = True
    if not seen:
        return _without_split(kinds), ""
    found = KNOWN.get(digest.hexdigest())
    if found is None:
        return DEFAULT, (
            "the pre-tokenizer is unknown to the engine: texts may be cut in other places "
            f"(digest {digest.hexdigest()[:12]})"
        )
    return found, ""


def _without_split(kinds: list[object]) -> str:
    if "ByteLevel" not in kinds:
        return DEFAULT
    return "starcoder" if "Digits" in kinds else "gpt-2"
