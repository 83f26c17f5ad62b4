"""JSON as Go's encoding/json (version 1, Go 1.26) writes and reads it.

Digests of manifests, configs and parameter layers are hashes of bytes that Go wrote, and clients
see the texts of Go's decoder, so both are reproduced here: `dumps` writes, `decode` reads the first
value of a body into a type described with `Struct`, `Slice`, `String`, ….

Source: observed behaviour of Go 1.26 `encoding/json`; vectors in `tests/data/go-json.json`.
"""

from registry.core.gojson.encoding import Float32, Raw, UnsupportedValue, dumps
from registry.core.gojson.leaves import base64_bytes
from registry.core.gojson.syntax import JsonInvalid, JsonMissing, Node, Number, parse
from registry.core.gojson.types import (
    Any,
    Bool,
    Bytes,
    Custom,
    Field,
    Float,
    Int,
    Map,
    Ptr,
    RawMessage,
    Schema,
    Slice,
    String,
    Struct,
    TypeFault,
    decode,
    kind,
    unmarshal,
)

__all__ = [
    "Any",
    "Bool",
    "Bytes",
    "Custom",
    "Field",
    "Float",
    "Float32",
    "Int",
    "JsonInvalid",
    "JsonMissing",
    "Map",
    "Node",
    "Number",
    "Ptr",
    "Raw",
    "RawMessage",
    "Schema",
    "Slice",
    "String",
    "Struct",
    "TypeFault",
    "UnsupportedValue",
    "base64_bytes",
    "decode",
    "dumps",
    "kind",
    "parse",
    "unmarshal",
]
