"""Go template text -> tree, with Go's own complaints about what does not parse.

`parse` is the whole of it. The template's name is empty, as the Ollama server's is, so complaints
read `template: :1: …`. The number before the text is the line of the token read last.

Source: package documentation of `text/template`; wording and order of the complaints are Go 1.26's.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from registry.core.errors import TemplateInvalid
from registry.core.gotemplate.constants import read_character, read_complex, read_number
from registry.core.gotemplate.function_names import FUNCTION_NAMES
from registry.core.gotemplate.lexer import Kind, Token
from registry.core.gotemplate.tokens import Tokens
from registry.core.gotemplate.tree import (
    Action,
    Bool,
    Break,
    Call,
    Chain,
    Command,
    Continue,
    Dot,
    Field,
    Identifier,
    If,
    Nil,
    Node,
    Nodes,
    Number,
    Operand,
    Pipe,
    Range,
    String,
    Templates,
    Text,
    Variable,
    With,
)
from registry.core.gotext import quote, trim_space, unquote

SIZE_LIMIT = 1 << 20
NESTING_LIMIT = 100

_NUMBERS: dict[Kind, Callable[[str], Number]] = {
    Kind.NUMBER: read_number,
    Kind.COMPLEX: read_complex,
    Kind.CHARACTER: read_character,
}
_OPERANDS = {Kind.DOT, Kind.FIELD, Kind.IDENTIFIER, Kind.NIL, Kind.OPEN, Kind.VARIABLE}
_OPERANDS |= {Kind.BOOL, Kind.RAW, Kind.STRING, *_NUMBERS}
_CONTROLS: dict[Kind, tuple[str, type[If] | type[With] | type[Range]]] = {
    Kind.IF: ("if", If),
    Kind.WITH: ("with", With),
    Kind.RANGE: ("range", Range),
}
_Literal = Bool | Dot | Nil | Number | String
_Term = Field | Variable | Identifier | Pipe | _Literal


def parse(text: str) -> Templates:
    """Read a template.

    Raises:
        TemplateInvalid: with Go's message; or the text is over a limit of ours (1 MiB, 100 levels
            of blocks and brackets together, 100,000 tokens).
    """
    if len(text.encode("utf-8", "surrogatepass")) > SIZE_LIMIT:
        raise TemplateInvalid("template: :1: longer than 1 MiB")
    return _Parser(Tokens(text)).parse()


class _Scope:
    """What one template (the text itself, a `define`, a `block`) keeps to itself."""

    def __init__(self) -> None:
        self.variables = ["$"]
        self.known = Counter(self.variables)
        self.ranges = 0
        self.action_line = 0

    def declare(self, name: str) -> None:
        self.variables.append(name)
        self.known[name] += 1

    def forget(self, keep: int) -> None:
        for name in self.variables[keep:]:
            self.known[name] -= 1
        del self.variables[keep:]


class _Parser:
    """Recursive descent; each method reads one construct and leaves the rest."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._depth = 0
        self._scope = _Scope()
        self._defined: dict[str, Nodes] = {}

    def _unexpected(self, token: Token, context: str) -> TemplateInvalid:
        if token.kind is not Kind.ERROR:
            return self._tokens.fault(f"unexpected {token.shown()} in {context}")
        started = self._scope.action_line
        if started in (0, token.line):
            return self._tokens.fault(token.text)
        joint = " " if token.text.endswith(" action") else " in action "
        return self._tokens.fault(f"{token.text}{joint}started at :{started}")

    def _expect(self, kinds: Iterable[Kind], context: str) -> Token:
        token = self._tokens.next_solid()
        if token.kind not in kinds:
            raise self._unexpected(token, context)
        return token

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > NESTING_LIMIT:
            raise self._tokens.fault(f"nested deeper than {NESTING_LIMIT} levels")

    # Lists of nodes.

    def parse(self) -> Templates:
        """The whole text."""
        nodes: list[Node] = []
        while (token := self._tokens.next()).kind is not Kind.EOF:
            if token.kind is Kind.LEFT:
                keyword = self._tokens.next_solid()
                if keyword.kind is Kind.DEFINE:
                    self._definition()
                    continue
                self._tokens.push(keyword)
            self._tokens.push(token)
            node = self._node()
            if isinstance(node, Token):
                raise self._tokens.fault(f"unexpected {_clause(node)}")
            nodes.append(node)
        self._add("", tuple(nodes))
        return Templates(self._defined.pop(""), self._defined)

    def _add(self, name: str, nodes: Nodes) -> None:
        if name not in self._defined or _is_blank(self._defined[name]):
            self._defined[name] = nodes
        elif not _is_blank(nodes):
            raise self._tokens.fault(f"template: multiple definition of template {quote(name)}")

    def _definition(self) -> None:
        context = "define clause"
        outer, self._scope = self._scope, _Scope()
        name = self._text_of(self._expect((Kind.STRING, Kind.RAW), context))
        self._expect((Kind.RIGHT,), context)
        self._body(name, context)
        self._scope = outer

    def _body(self, name: str, context: str) -> None:
        """The nodes of a `define` or `block` up to its end, kept under `name`."""
        nodes, end = self._nodes()
        if end.kind is not Kind.END:
            raise self._tokens.fault(f"unexpected {_clause(end)} in {context}")
        self._add(name, nodes)

    def _nodes(self) -> tuple[Nodes, Token]:
        """Nodes up to an `end` or `else`, which is returned beside them."""
        self._deeper()
        nodes: list[Node] = []
        while self._tokens.peek_solid().kind is not Kind.EOF:
            node = self._node()
            if isinstance(node, Token):
                self._depth -= 1
                return tuple(nodes), node
            nodes.append(node)
        raise self._tokens.fault("unexpected EOF")

    def _node(self) -> Node | Token:
        """One node, or the `end` or `else` token of a clause that ends a list."""
        token = self._tokens.next_solid()
        if token.kind is Kind.TEXT:
            return Text(token.text)
        if token.kind is not Kind.LEFT:
            raise self._unexpected(token, "input")
        self._scope.action_line = token.line
        node = self._action()
        self._scope.action_line = 0
        return node

    def _action(self) -> Node | Token:
        token = self._tokens.next_solid()
        if token.kind in _CONTROLS:
            return self._control(token.kind)
        if token.kind is Kind.END:
            self._expect((Kind.RIGHT,), "end")
            return token
        if token.kind is Kind.ELSE:
            # `else if` and `else with` are read by whoever reads the `else`.
            if self._tokens.peek_solid().kind not in (Kind.IF, Kind.WITH):
                self._expect((Kind.RIGHT,), "else")
            return token
        if token.kind in (Kind.BREAK, Kind.CONTINUE):
            return self._jump(token)
        if token.kind is Kind.TEMPLATE:
            return self._call()
        if token.kind is Kind.BLOCK:
            return self._block()
        self._tokens.push(token)
        return Action(self._pipeline("command", Kind.RIGHT))

    # Clauses.

    def _jump(self, token: Token) -> Node:
        shown = f"{{{{{token.text}}}}}"
        self._expect((Kind.RIGHT,), shown)
        if not self._scope.ranges:
            raise self._tokens.fault(f"{shown} outside {{{{range}}}}")
        return Break() if token.kind is Kind.BREAK else Continue()

    def _control(self, kind: Kind) -> Node:
        context, make = _CONTROLS[kind]
        scope = self._scope
        keep = len(scope.variables)
        pipe = self._pipeline(context, Kind.RIGHT)
        scope.ranges += kind is Kind.RANGE
        body, end = self._nodes()
        scope.ranges -= kind is Kind.RANGE
        otherwise = self._otherwise(kind) if end.kind is Kind.ELSE else None
        scope.forget(keep)
        return make(pipe, body, otherwise)

    def _otherwise(self, kind: Kind) -> Nodes:
        if kind is not Kind.RANGE and self._tokens.peek().kind is kind:
            self._tokens.next()
            self._deeper()
            node = self._control(kind)  # its `end` is ours too
            self._depth -= 1
            return (node,)
        nodes, end = self._nodes()
        if end.kind is not Kind.END:
            raise self._tokens.fault(f"expected end; found {_clause(end)}")
        return nodes

    def _call(self) -> Node:
        context = "template clause"
        name = self._text_of(self._expect((Kind.STRING, Kind.RAW), context))
        token = self._tokens.next_solid()
        if token.kind is Kind.RIGHT:
            return Call(name, None)
        self._tokens.push(token)
        return Call(name, self._pipeline(context, Kind.RIGHT))

    def _block(self) -> Node:
        context = "block clause"
        name = self._text_of(self._expect((Kind.STRING, Kind.RAW), context))
        pipe = self._pipeline(context, Kind.RIGHT)
        outer, self._scope = self._scope, _Scope()
        self._body(name, context)
        self._scope = outer
        return Call(name, pipe)

    def _text_of(self, token: Token) -> str:
        value = unquote(token.text)
        if value is None:
            raise self._tokens.fault("invalid syntax")
        return value

    # Pipelines.

    def _pipeline(self, context: str, end: Kind) -> Pipe:
        variables, assigns = self._declarations(context)
        commands: list[Command] = []
        while (token := self._tokens.next_solid()).kind is not end:
            if token.kind not in _OPERANDS:
                raise self._unexpected(token, context)
            self._tokens.push(token)
            commands.append(self._command())
        if not commands:
            raise self._tokens.fault(f"missing value for {context}")
        for stage, command in enumerate(commands[1:], 2):
            if isinstance(command.args[0], _Literal):
                raise self._tokens.fault(f"non executable command in pipeline stage {stage}")
        return Pipe(tuple(commands), variables, assigns)

    def _declarations(self, context: str) -> tuple[tuple[str, ...], bool]:
        """The variables before `:=` or `=`, if that is what the pipeline starts with."""
        names: list[str] = []
        while (variable := self._tokens.next_solid()).kind is Kind.VARIABLE:
            after = self._tokens.next()
            mark = self._tokens.next_solid() if after.kind is Kind.SPACE else after
            is_comma = mark.kind is Kind.CHAR and mark.text == ","
            if not is_comma and mark.kind not in (Kind.ASSIGN, Kind.DECLARE):
                self._tokens.push(mark)
                if after is not mark:
                    self._tokens.push(after)
                break
            names.append(variable.text)
            self._scope.declare(variable.text)
            if not is_comma:
                return tuple(names), mark.kind is Kind.ASSIGN
            self._check_comma(context, len(names))
        self._tokens.push(variable)
        return tuple(names), False

    def _check_comma(self, context: str, count: int) -> None:
        if context != "range" or count >= 2:
            raise self._tokens.fault(f"too many declarations in {context}")
        if self._tokens.peek_solid().kind not in (Kind.VARIABLE, Kind.RIGHT, Kind.CLOSE):
            raise self._tokens.fault("range can only initialize variables")

    def _command(self) -> Command:
        args: list[Operand] = []
        while True:
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = self._tokens.next()
            if token.kind is Kind.SPACE:
                continue
            if token.kind in (Kind.RIGHT, Kind.CLOSE):
                self._tokens.push(token)
            elif token.kind is not Kind.PIPE:
                raise self._unexpected(token, "operand")
            return Command(tuple(args))

    def _operand(self) -> Operand | None:
        node = self._term()
        if node is None or self._tokens.peek().kind is not Kind.FIELD:
            return node
        names: list[str] = []
        while self._tokens.peek().kind is Kind.FIELD:
            names.append(self._tokens.next().text[1:])
        if isinstance(node, Field | Variable):
            return type(node)((*node.names, *names))
        if isinstance(node, Identifier | Pipe):
            return Chain(node, tuple(names))
        raise self._tokens.fault(f"unexpected . after term {quote(_source(node))}")

    def _term(self) -> _Term | None:
        token = self._tokens.next_solid()
        if token.kind is Kind.FIELD:
            return Field((token.text[1:],))
        if token.kind is Kind.VARIABLE:
            if not self._scope.known[token.text]:
                raise self._tokens.fault(f"undefined variable {quote(token.text)}")
            return Variable((token.text,))
        if token.kind is Kind.IDENTIFIER:
            if token.text not in FUNCTION_NAMES:
                raise self._tokens.fault(f"function {quote(token.text)} not defined")
            return Identifier(token.text)
        if token.kind is Kind.OPEN:
            self._deeper()
            pipe = self._pipeline("parenthesized pipeline", Kind.CLOSE)
            self._depth -= 1
            return pipe
        return self._constant(token)

    def _constant(self, token: Token) -> _Literal | None:
        if token.kind is Kind.DOT:
            return Dot()
        if token.kind is Kind.NIL:
            return Nil()
        if token.kind is Kind.BOOL:
            return Bool(token.text == "true")
        if token.kind in (Kind.STRING, Kind.RAW):
            return String(token.text, self._text_of(token))
        if token.kind in _NUMBERS:
            try:
                return _NUMBERS[token.kind](token.text)
            except TemplateInvalid as invalid:
                raise self._tokens.fault(str(invalid)) from None
        self._tokens.push(token)
        return None


def _clause(token: Token) -> str:
    return f"{{{{{token.text}}}}}"


def _source(node: _Literal) -> str:
    match node:
        case Bool(value):
            return "true" if value else "false"
        case String(quoted):
            return quoted
        case Number(text):
            return text
        case Nil():
            return "nil"
    return "."


def _is_blank(nodes: Nodes) -> bool:
    return all(isinstance(node, Text) and not trim_space(node.text) for node in nodes)
