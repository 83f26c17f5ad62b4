"""Templates that a model gets because its chat template is a well-known one.

`prompt_formats` holds the Go templates and stop sequences, `chat_templates` the Jinja texts by
which they are recognised, `digests` the digests of further ones.

Source: observed behaviour of the Ollama server: the nearest known text wins if it is closer than
100 insertions, deletions and replacements of bytes.
"""

import hashlib

from rapidfuzz.distance import Levenshtein

from registry.core.builtin_templates.chat_templates import CHAT_TEMPLATES
from registry.core.builtin_templates.digests import DIGESTS
from registry.core.builtin_templates.prompt_formats import PROMPT_FORMATS, Builtin

__all__ = ["PROMPT_FORMATS", "Builtin", "detect"]

_NEAR = 100
_KNOWN = tuple(
    (PROMPT_FORMATS[name], text.encode())
    for name, texts in CHAT_TEMPLATES.items()
    for text in texts
)
_LONGEST = max(len(known) for _, known in _KNOWN)


def detect(chat_template: str) -> Builtin | None:
    """The built-in template for a Jinja text; None if it is near no known one.

    A text of any size costs at most some milliseconds: one whose length differs by 100 bytes
    cannot be near.
    """
    if len(chat_template) >= _LONGEST + _NEAR:
        return None
    sought = chat_template.encode("utf-8", "surrogatepass")
    name = DIGESTS.get(hashlib.sha256(sought).hexdigest())
    if name is not None:
        return PROMPT_FORMATS[name]
    best, near = None, _NEAR
    for builtin, known in _KNOWN:
        if abs(len(sought) - len(known)) >= near:
            continue
        distance = Levenshtein.distance(sought, known, score_cutoff=near - 1)
        if distance < near:
            best, near = builtin, distance
    return best
