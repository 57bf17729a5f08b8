"""The API described for machines (OpenAPI 3.1), made from the tables of `operations`: never out of date."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from circus_failover.web.access import COOKIE, CSRF_HEADER
from circus_failover.web.answer_schemas import ANSWERS, Schema, always, ref, several, word
from circus_failover.web.operations import BASE, READS, VERBS, Read, Verb
from circus_failover.words import Role

_COMPONENT = "#/components/schemas/{model}"
_PLACES = {
    "host": "the name of a host; `GET /api/v1/hosts` lists them",
    "name": "the identity of an agent, or the name of a watcher",
    "file": "the name of a snapshot: the last part of `forensics` of a death",
}
_WHY_NOT: Mapping[int, str] = {
    400: "what was sent makes no sense: the path, a parameter or the body",
    401: "nobody is signed in: no token, or a cookie without its CSRF token",
    403: "not with this role, or from where the request came",
    404: "there is no such thing",
    405: "not with this method",
    409: "refused",
    413: "the body is too large",
    421: "the Host of the request is none of the console's",
    429: "too many attempts",
    503: "circusd does not answer",
    504: "circusd did not answer in time; what it was asked to do may be under way",
}
_EVERYWHERE = (400, 401, 403, 405, 421)
_TEXT = """\
What the web console shows and does, for scripts. Every action is a verb of circusd, as `failoverctl` sends
it. Times are epoch seconds; what is not known is null; fields are added, never renamed. Errors are one
sentence in `error`. Scripts send `Authorization: Bearer TOKEN`. Pages of the console have a session: its
cookie and the `csrf` that POST /api/v1/session answers, sent as `X-CSRF-Token` with every request; neither
counts without the other. What changes is told over the web socket at /api/v1/live."""


def document(version: str) -> dict[str, Any]:
    """Return the OpenAPI document.

    Args:
        version: the version of this package.
    """
    schemas: dict[str, Any] = dict(ANSWERS)
    paths: dict[str, Any] = {BASE + read.path: {"get": _read(read)} for read in READS}
    for verb in VERBS:
        paths[f"{BASE}/hosts/{{host}}/verbs/{verb.name}"] = {"post": _verb(verb, schemas)}
    paths[f"{BASE}/openapi.json"] = {"get": _plain("openapi", "This document", {"type": "object"})}
    paths[f"{BASE}/session"] = {"get": _plain("session", "Who is signed in", _SESSION)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "circus-failover", "version": version, "description": _TEXT},
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": [], "csrf": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
                "csrf": {"type": "apiKey", "in": "header", "name": CSRF_HEADER},
            },
        },
    }


_SESSION = always(
    role=word(Role), who={"type": "string"}, version={"type": "string"}, hosts=several({"type": "string"})
)


def _plain(name: str, summary: str, answer: Schema) -> dict[str, Any]:
    return {"operationId": name, "summary": summary, "responses": _responses(answer)}


def _read(read: Read) -> dict[str, Any]:
    further = [404] if "{" in read.path else []
    if read.asks or read.path.count("/") > 2:
        further += [409, 503, 504]
    operation = _plain(read.name, read.summary, ref(read.schema))
    operation["parameters"] = [*_in_path(read.path), *_in_query(read.query)]
    operation["responses"] = _responses(ref(read.schema), *further)
    if read.asks:
        operation["description"] = f"Asks circusd: {', '.join(f'`{verb}`' for verb in read.asks)}."
    return operation


def _verb(verb: Verb, schemas: dict[str, Any]) -> dict[str, Any]:
    operation = _plain(f"send_{verb.name}", verb.summary, ref("VerbAnswer"))
    body = _component(verb.model, schemas)
    needed = bool(verb.model.one_of) or any(f.is_required() for f in verb.model.model_fields.values())
    operation.update(
        {
            "parameters": _in_path("/{host}"),
            "requestBody": {
                "required": needed,
                "content": {"application/json": {"schema": body}},
            },
            "responses": _responses(ref("VerbAnswer"), 404, 409, 413, 503, 504),
            "x-role": str(verb.role),
            "x-harm": str(verb.harm),
        }
    )
    operation["responses"]["409"] = _response(_WHY_NOT[409], ref("Refusal"))
    return operation


def _component(model: type[BaseModel], schemas: dict[str, Any]) -> Schema:
    """Add a model to the schemas, and return a reference to it."""
    made = model.model_json_schema(ref_template=_COMPONENT)
    schemas.update(made.pop("$defs", {}))
    name = f"{model.__name__}Body"  # an answer may have the model's own name
    schemas[name] = made
    return ref(name)


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PLACES[name],
            "schema": {"type": "string", "minLength": 1},
        }
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _in_query(model: type[BaseModel]) -> list[dict[str, Any]]:
    made = model.model_json_schema()
    found = []
    for name, schema in made.get("properties", {}).items():
        whole = dict(schema)
        if "$ref" in whole:
            whole.update(made["$defs"][whole.pop("$ref").rsplit("/", 1)[-1]])
        whole.pop("title", None)
        described = whole.pop("description", "")
        found.append({"name": name, "in": "query", "description": described, "schema": whole})
    return found


def _responses(answer: Schema, *further: int) -> dict[str, Any]:
    responses = {"200": _response("the answer", answer)}
    for status in sorted({*_EVERYWHERE, *further}):
        responses[str(status)] = _response(_WHY_NOT[status], ref("Error"))
    return responses


def _response(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
