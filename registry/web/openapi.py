"""GET /api/v1/openapi.json: the OpenAPI 3.1 document, made of the rows that answer the requests.

Descriptions are the handlers' docstrings, schemas those of the pydantic models that read and write
the bodies. Source: OpenAPI Specification 3.1.
"""

import inspect
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from registry import __version__
from registry.web.answers import bytes_response, json_response
from registry.web.api_v1 import ENDPOINTS
from registry.web.api_v1_schemas import ErrorAnswer
from registry.web.endpoints import Endpoint, For, part_schema
from registry.web.resources import resource

_REF = "#/components/schemas/{model}"
_TITLE = "Model library: accounts, keys, rights and workers"
_ABOUT = (
    "Who may use this model library, and with what. Models themselves are reached by the Ollama "
    "API (`/api`) and the registry protocol (`/v2`). Every error is `{\"error\": \"…\"}`."
)  # fmt: skip


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document of some endpoints."""
    models = _models(endpoints) | {ErrorAnswer}
    _, definitions = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)],
        ref_template=_REF,
    )
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = re.sub(r":[a-z]+}", "}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": _TITLE, "version": __version__, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _models(endpoints: Iterable[Endpoint]) -> set[type[BaseModel]]:
    return {
        model for endpoint in endpoints for model in (endpoint.answer, endpoint.body) if model
    }  # queries are written out as parameters


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    summary, _, rest = (inspect.getdoc(endpoint.handler) or "").partition("\n")
    operation: dict[str, Any] = {
        "operationId": getattr(endpoint.handler, "__name__", ""),
        "summary": summary.rstrip("."),
        "description": f"{' '.join(rest.split())} For: {endpoint.access.value}.".strip(),
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint)],
        "responses": _responses(endpoint),
    }
    if endpoint.access is not For.EVERYBODY:
        operation["security"] = [{"bearer": []}, {"basic": []}]
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(endpoint.body)}
    return operation


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": part_schema(name)}
        for name in re.findall(r"{([a-z]+)}", endpoint.path)
    ]


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.query is None:
        return []
    schema = endpoint.query.model_json_schema()
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _given(part)}
        for name, part in schema["properties"].items()
    ]


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter that is there: a query cannot say null."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if not options:
        return schema
    rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
    return {**rest, **options[0]}


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done"}
    if endpoint.answer is not None:
        kind = "application/x-ndjson" if endpoint.stream else "application/json"
        done["content"] = _content(endpoint.answer, kind)
    status = endpoint.status if endpoint.answer is not None else 204
    return {
        str(status): done,
        **{
            str(code): {"description": HTTPStatus(code).phrase, "content": _content(ErrorAnswer)}
            for code in sorted(_error_statuses(endpoint))
        },
    }


def _error_statuses(endpoint: Endpoint) -> set[int]:
    """What any endpoint of its kind may answer, and what is its own."""
    codes = {400, 503, *endpoint.errors}
    if endpoint.access is not For.EVERYBODY:
        codes |= {401, 403, 429}
    if endpoint.access not in {For.SIGNED_IN, For.KEEPER}:
        codes.add(409)  # authentication is off
    if "{" in endpoint.path:
        codes.add(404)
    if endpoint.body is not None:
        codes.add(413)
    return codes


def _content(model: type[BaseModel], kind: str = "application/json") -> dict[str, Any]:
    return {kind: {"schema": {"$ref": _REF.format(model=model.__name__)}}}


@lru_cache(1)
def _bytes() -> bytes:
    return json_response(document(ENDPOINTS)).body  # type: ignore[return-value]  # bytes it is


async def openapi(request: Request) -> Response:
    """GET /api/v1/openapi.json: for everybody; it says nothing about this installation."""
    return bytes_response(_bytes())


routes = [resource("/api/v1/openapi.json", GET=openapi)]
