"""`WWW-Authenticate`: where a token can be had, and for what it is needed.

Ollama looks at the first header only and finds the parameters by their text, so the order, the
quotes and what a value may hold are fixed here.

Source: spec registry-protocol 1.4, 4.1; RFC 6750 3 for `error`.
"""

from dataclasses import dataclass

INVALID_TOKEN = "invalid_token"  # noqa: S105 - a word of the protocol
INSUFFICIENT_SCOPE = "insufficient_scope"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What to ask a client for. `scope` is empty where any token will do, `error` without one."""

    realm: str
    service: str
    scope: str = ""
    error: str = ""

    def headers(self) -> list[str]:
        """The values of the headers, in the order in which they are to be sent."""
        parts = [("realm", self.realm), ("service", self.service)]
        parts += [("scope", self.scope)] if self.scope else []
        parts += [("error", self.error)] if self.error else []
        bearer = ",".join(f"{name}={_quoted(value)}" for name, value in parts)
        # The Python client of oras reads both headers as one and takes the last realm for the
        # address of tokens; to whoever sends a password, a realm is no more than a word.
        return [f"Bearer {bearer}", f"Basic realm={_quoted(self.realm)}"]


def repository_scope(name: str, *actions: str) -> str:
    """The scope of a repository, which is named as the client spelt it."""
    return f"repository:{name}:{','.join(actions)}"


def _quoted(value: str) -> str:
    """A value in quotes. Characters that would end it early are left out: no name of ours has any.

    Line breaks cannot come: the values are settings and names that were checked.
    """
    return '"' + value.replace('"', "").replace("\\", "") + '"'
