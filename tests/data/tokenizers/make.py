"""Makes this folder's files: small tokenizers of each kind, and how they cut difficult texts.

Not part of the test command, since the tests only read what it made:

    pip install tokenizers sentencepiece
    python -m tests.data.tokenizers.make
"""

import io
import json
import re
from pathlib import Path
from typing import Any

import sentencepiece  # type: ignore[import-untyped,import-not-found,unused-ignore]
from tokenizers import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "\r\n\r\n",
    "\t\ttabs\tand  double  spaces ",
    "Hello, world!",
    " leading space",
    "trailing space ",
    "don't we'll I'VE they'd it's",
    "0 1 12 123 1234 12345 3.14159 1,000,000 0x1F",
    "x" * 300,
    "ab " * 60,
    "UPPER lower CamelCase snake_case kebab-case",
    "naïve café Ångström coöperate",
    "e\u0301 a\u0308 combining",
    "Привет, мир! Это проверка.",
    "你好，世界。今天天气很好！",
    "こんにちは世界 カタカナ",
    "안녕하세요 세계",
    "مرحبا بالعالم",
    "שלום עולם",
    "हिन्दी में परीक्षण",
    "😀😃👨‍👩‍👧‍👦🏳️‍🌈",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕄𝕒𝕥𝕙",
    "zero\u200bwidth\u200cjoin\u200der",
    "nbsp\u00a0thin\u2009ideographic\u3000space",
    "quotes “curly” ‘single’ «guillemets»",
    "!@#$%^&*()_+-=[]{}|;':\",./<>?`~",
    "def f(x):\n    return x ** 2  # comment\n\n\nclass A:\n\tpass\n",
    "https://example.org/a?b=c&d=%20#frag user@example.org",
    "a\u0000b\u0001c\u007f",
    "mixed 中文 and English และไทย",
    "▁ lower block ▁▁ in text",
    "Ġ Ċ byte alphabet letters",
    "…—–•·°±²³µ¶",
    "ß ẞ ﬁ ﬂ Ǆ ǅ",
    "line\u2028separator\u2029paragraph\u0085next",
]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPECIALS = ["<|begin|>", "<|end|>"]


def corpus() -> list[str]:
    texts = [path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))]
    found = [line for text in texts for line in re.split(r"\n+", text) if line]
    return found + [text for text in TEXTS if text.isprintable()] * 3


def byte_level(split: str | None, *, digits: bool = False) -> Any:
    tokenizer = Tokenizer(models.BPE())
    steps: list[Any] = []
    if split:
        steps.append(pre_tokenizers.Split(Regex(split), "isolated"))
    if digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens([AddedToken("<user>", special=False, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
    )
    return tokenizer


def by_characters(*, prepends: bool) -> Any:
    """As transformers writes a SentencePiece BPE: byte fall-back, a sign for the space."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps: list[Any] = [normalizers.Prepend("▁")] if prepends else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=specials, show_progress=False, limit_alphabet=200
    )
    split = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.pre_tokenizer = split
    tokenizer.train_from_iterator(corpus(), trainer)
    values = json.loads(tokenizer.to_str())
    values["pre_tokenizer"] = None
    kept = {"<unk>", "<s>", "</s>"}
    values["added_tokens"] = [one for one in values["added_tokens"] if one["content"] in kept]
    made = Tokenizer.from_str(json.dumps(values))
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return made


def word_piece(*, lowercase: bool) -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=900,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def unigram() -> Any:
    """As XLM-RoBERTa's: specials first, a space before each word."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=800,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def sentence_piece(kind: str) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        vocab_size=1000,
        model_type=kind,
        byte_fallback=kind == "bpe",
        normalization_rule_name="identity" if kind == "bpe" else "nmt_nfkc",
        remove_extra_whitespaces=kind != "bpe",
        minloglevel=2,
    )
    return model.getvalue()


def main() -> None:
    cases: dict[str, Any] = {"texts": TEXTS, "ids": {}}
    made = {
        "llama-bpe": byte_level(LLAMA3),
        "qwen2": byte_level(QWEN2),
        "gpt-2": byte_level(None),
        "starcoder": byte_level(None, digits=True),
        "characters": by_characters(prepends=True),
        "characters-plain": by_characters(prepends=False),
        "wordpiece": word_piece(lowercase=True),
        "wordpiece-cased": word_piece(lowercase=False),
        "unigram": unigram(),
    }
    for name, tokenizer in made.items():
        (HERE / f"{name}.json").write_text(tokenizer.to_str())
        found = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
        cases["ids"][name] = [one.ids for one in found]
    for kind in ("bpe", "unigram"):
        data = sentence_piece(kind)
        (HERE / f"sentencepiece-{kind}.model").write_bytes(data)
        model = sentencepiece.SentencePieceProcessor(model_proto=data)
        cases["ids"][f"sentencepiece-{kind}"] = [model.encode(text) for text in TEXTS]
    (HERE / "cases.json").write_text(json.dumps(cases, ensure_ascii=True))


if __name__ == "__main__":
    main()
