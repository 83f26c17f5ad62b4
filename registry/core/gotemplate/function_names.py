"""The functions a template may name: Go's own, and those the Ollama server adds."""

_LOGIC = frozenset(("and", "eq", "ge", "gt", "le", "lt", "ne", "not", "or"))
_TEXT = frozenset(("html", "js", "print", "printf", "println", "urlquery"))
_DATA = frozenset(("call", "index", "len", "slice"))
_SERVER = frozenset(("currentDate", "json", "toTypeScriptType", "yesterdayDate"))

FUNCTION_NAMES = _LOGIC | _TEXT | _DATA | _SERVER
