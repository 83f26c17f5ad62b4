"""Feeds the GGUF header reader what libFuzzer makes up; ends at the first crash, hang or bloat.

Not part of the test command, since atheris is no dependency of the project:

    pip install atheris
    python -m tests.fuzz.gguf_header -max_total_time=600 -timeout=2 -rss_limit_mb=512 CORPUS_DIR

Good seeds for CORPUS_DIR are `tests/golden/inputs/*.gguf` and `tests/golden/inputs/malformed`.
"""

import sys

import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

with atheris.instrument_imports():
    from registry.core.errors import GgufInvalid
    from registry.core.facts import Facts, array_values, model_info
    from registry.core.gguf import HeaderReader
    from registry.core.gojson import dumps


def read(data: bytes) -> None:
    """What a stored file goes through: header, facts, the catalog and back, a verbose answer."""
    try:
        reader = HeaderReader(len(data))
        while reader.need is not None:
            start, length = reader.need
            reader.feed(data[start : start + min(length, 1000)])
    except GgufInvalid:
        return
    assert reader.header is not None
    facts = Facts.of(reader.header)
    assert Facts.from_json(facts.to_json()) == facts
    arrays = {
        key: array_values(span, data[span.offset : span.offset + span.length])
        for key, span in facts.spans.items()
    }
    dumps(model_info(facts, arrays))


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
