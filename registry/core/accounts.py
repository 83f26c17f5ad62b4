"""Names of accounts, the shapes of what they prove themselves with, and how both are written.

Everything a person types on the command line or the page about accounts is read here.
"""

import re

from registry.core.access import Scope, check_pattern, parse_rights, right_words
from registry.core.errors import NameInvalid, RequestInvalid
from registry.core.names import DEFAULT_NAMESPACE

KINDS = ("user", "robot", "node")
PASSWORD_MIN = 10
PASSWORD_MAX = 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")  # so that it can be a namespace
_API_KEY = re.compile(r"hf_[A-Za-z0-9]{34,253}")  # what llama.cpp and huggingface_hub take
_LIFETIME = re.compile(r"([0-9]{1,5})([smhdwy])")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_NOT_CODE = re.compile(r"[\s-]")
_CODE = re.compile(r"[0-9A-HJKMNP-TV-Z]{24}")
_TITLE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]{0,100}")
CODE_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE_LENGTH = 24  # 120 bits
HINT_LENGTH = 9  # of an API key, `hf_` and six more of its 238 bits


def check_name(text: str, what: str = "user") -> str:
    """Return `text` if an account or team can be called so.

    `library` cannot: whoever is called like a namespace owns it, and that one is everybody's.

    Raises:
        NameInvalid: it cannot.
    """
    if not _NAME.fullmatch(text):
        raise NameInvalid(
            f"invalid {what} name {text[:80]!r}: up to 80 letters, digits, '-' and '_'"
        )
    if text.lower() == DEFAULT_NAMESPACE:
        raise NameInvalid(f"a {what} cannot be called {text!r}: it is the default namespace")
    return text


def is_name(text: str) -> bool:
    """Whether an account may have that name."""
    return _NAME.fullmatch(text) is not None


def check_password(text: str) -> str:
    """Return `text` if it may be a password.

    Raises:
        RequestInvalid: it is too short or too long.
    """
    if len(text) < PASSWORD_MIN:
        raise RequestInvalid(f"a password needs at least {PASSWORD_MIN} characters")
    if len(text) > PASSWORD_MAX:
        raise RequestInvalid(f"a password can have up to {PASSWORD_MAX} characters")
    return text


def check_title(text: str) -> str:
    """Return `text` if it may name a key in lists: one line of up to 100 characters.

    Raises:
        RequestInvalid: it may not.
    """
    if not _TITLE.fullmatch(text):
        raise RequestInvalid("a title is one line of up to 100 characters")
    return text


def is_api_key(text: str) -> bool:
    """Whether `text` has the shape of our API keys."""
    return _API_KEY.fullmatch(text) is not None


def code_key(text: str) -> str | None:
    """What two spellings of a one-time code have in common; None if it is none."""
    if len(text) > 100:
        return None
    plain = _NOT_CODE.sub("", text).upper()
    return plain if _CODE.fullmatch(plain) else None


def code_text(plain: str) -> str:
    """A code as it is shown: in groups of six."""
    return "-".join(plain[start : start + 6] for start in range(0, len(plain), 6))


def parse_subject(text: str) -> tuple[str, str]:
    """Read whom a rule is for: `("user", "alice")`, `("team", "core")`, `("users", "")`.

    Raises:
        RequestInvalid: it is none of those, nor `everybody`.
    """
    kind, colon, name = text.partition(":")
    if kind in {"user", "team"} and colon and _NAME.fullmatch(name):
        return kind, name
    if text in {"users", "everybody"}:
        return text, ""
    raise RequestInvalid(
        f"unknown subject {text[:100]!r}: known are user:NAME, team:NAME, users, everybody"
    )


def parse_scope(text: str) -> Scope:
    """Read `team/*:read,write`.

    Raises:
        RequestInvalid: it is no scope.
    """
    pattern, colon, rights = text.rpartition(":")
    if not colon:
        raise RequestInvalid(f"a scope is PATTERN:RIGHTS, like 'team/*:read', not {text[:100]!r}")
    return Scope(check_pattern(pattern), parse_rights(rights))


def scope_text(scope: Scope) -> str:
    """What `parse_scope` reads."""
    return f"{scope.pattern}:{','.join(right_words(scope.rights))}"


def parse_lifetime(text: str) -> int | None:
    """Read `90d`, `12h`, `2w`, `1y`, in seconds; None for `never`.

    Raises:
        RequestInvalid: it is neither.
    """
    if text == "never":
        return None
    match = _LIFETIME.fullmatch(text)
    if match is None or not int(match[1]):
        raise RequestInvalid(f"{text[:40]!r} is no time: write it like 90d, 12h, 2w, 1y or never")
    return min(int(match[1]) * _UNIT_S[match[2]], 100 * _UNIT_S["y"])
