"""Tokens with pushback: what the parser reads from."""

from registry.core.errors import TemplateInvalid
from registry.core.gotemplate.lexer import Kind, Lexer, Token

TOKEN_LIMIT = 100_000  # a second of reading; templates in use have a few hundred


class Tokens:
    """The tokens of a text, in order. Any number may be given back."""

    def __init__(self, text: str) -> None:
        self._lexer = Lexer(text)
        self._pushed: list[Token] = []  # the next one last
        self._line = 1
        self._taken = 0

    def next(self) -> Token:
        """The next token."""
        if self._pushed:
            return self._pushed.pop()
        token = self._lexer.next()
        self._line = token.line
        self._taken += 1
        if self._taken > TOKEN_LIMIT:
            raise self.fault(f"more than {TOKEN_LIMIT} tokens")
        return token

    def next_solid(self) -> Token:
        """The next token that is not space; the space is gone."""
        token = self.next()
        while token.kind is Kind.SPACE:
            token = self.next()
        return token

    def push(self, *tokens: Token) -> None:
        """Give tokens back; the last one given is the next one read."""
        self._pushed.extend(tokens)

    def peek(self) -> Token:
        """The next token, which stays."""
        token = self.next()
        self.push(token)
        return token

    def peek_solid(self) -> Token:
        """The next token that is not space; it stays, the space is gone."""
        token = self.next_solid()
        self.push(token)
        return token

    def fault(self, message: str) -> TemplateInvalid:
        """The error to raise: it names the line of the token last taken from the text."""
        return TemplateInvalid(f"template: :{self._line}: {message}")
