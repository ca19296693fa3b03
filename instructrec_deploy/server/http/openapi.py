"""`/openapi.json`: the calls and their messages, made from the proto's own descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from instructrec_deploy import __version__
from instructrec_deploy.server.http.calls import HTTP_STATUS, TIMEOUT_HEADER, Call

F = FieldDescriptor
SIMPLE: dict[int, dict[str, Any]] = {
    F.TYPE_STRING: {"type": "string"},
    F.TYPE_BYTES: {"type": "string", "format": "byte"},
    F.TYPE_BOOL: {"type": "boolean"},
    F.TYPE_FLOAT: {"type": "number", "format": "float"},
    F.TYPE_DOUBLE: {"type": "number", "format": "double"},
    F.TYPE_INT32: {"type": "integer", "format": "int32"},
    F.TYPE_UINT32: {"type": "integer", "minimum": 0},
    F.TYPE_UINT64: {"type": "string", "format": "uint64"},  # as protobuf's JSON has it
    F.TYPE_INT64: {"type": "string", "format": "int64"},
}
ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                name: {"type": "string"}
                for name in ("status", "code", "message", "hint", "retry_after_ms")
            },
        }
    },
}


def describe_api(calls: Iterable[Call], *, needs_key: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document.

    Args:
        needs_key: callers send an API key or a token.
    """
    schemas: dict[str, Any] = {"Error": ERROR}
    paths = {}
    for call in calls:
        operation: dict[str, Any] = {
            "operationId": call.method,
            "parameters": [_timeout()],
            "responses": {
                "200": _body("An answer.", _refer(call.response.DESCRIPTOR, schemas)),
                "default": _body(
                    f"An error: {', '.join(map(str, sorted(set(HTTP_STATUS.values()))))}.",
                    {"$ref": "#/components/schemas/Error"},
                ),
            },
        }
        if call.is_get:
            operation["parameters"] += [
                {"name": field.name, "in": "query", "schema": SIMPLE[field.type]}
                for field in call.request.DESCRIPTOR.fields
            ]
        else:
            asked = _body("", _refer(call.request.DESCRIPTOR, schemas))
            operation["requestBody"] = {"required": True, "content": asked["content"]}
        if needs_key:
            operation["security"] = [{"bearer": []}, {"key": []}]
        paths[call.path] = {"get" if call.is_get else "post": operation}
    schemes = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "InstructRec", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas} | ({"securitySchemes": schemes} if needs_key else {}),
    }


def _timeout() -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1, "maximum": 86_400_000}
    return {"name": TIMEOUT_HEADER, "in": "header", "schema": schema}


def _body(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _refer(message: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of a message descriptor, which is made where it is missing."""
    if message.name not in schemas:
        properties: dict[str, Any] = {}
        schemas[message.name] = {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
        }
        properties.update({field.name: _field(field, schemas) for field in message.fields})
    return {"$ref": f"#/components/schemas/{message.name}"}


def _field(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    one = SIMPLE[field.type] if field.message_type is None else _refer(field.message_type, schemas)
    return {"type": "array", "items": one} if field.is_repeated else one
