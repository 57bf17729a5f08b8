"""What a request says, checked against a model: the values, or one sentence about what is wrong.

Everything here comes from outside and may be anything at all: nothing but `Wrong` is raised for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from circus_failover.problems import describe, nearest, printable

Model = TypeVar("Model", bound=BaseModel)
_WHOLE = re.compile(r"-?[0-9]{1,15}")
_EXPECTED = {
    "string_type": "a text",
    "string_unicode": "a text that can be written as UTF-8",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "another text",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "enum": "{expected}",
}


class Wrong(ValueError):
    """What a request says cannot be used; the text is a sentence."""


def _whole(given: object) -> object:
    """Read a whole number of a query, where everything is text."""
    return int(given) if isinstance(given, str) and _WHOLE.fullmatch(given) else given


def _either(given: object) -> object:
    """Read a yes or no of a query."""
    return {"true": True, "false": False}.get(given, given) if isinstance(given, str) else given


Whole = Annotated[int, BeforeValidator(_whole)]
Either = Annotated[bool, BeforeValidator(_either)]


class Query(BaseModel):
    """A query without any parameter."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def checked(model: type[Model], data: object) -> Model:
    """Return what was given, as the model has it.

    Args:
        model: what it is to be.
        data: what was given.

    Raises:
        Wrong: it is something else.
    """
    if not isinstance(data, dict):
        raise Wrong(f"found {describe(data)}, expected an object")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # One sentence: the first mistake. A union complains once for each of its members.
        raise Wrong(_sentence(model, error.errors(include_url=False)[0])) from None


def parameters(model: type[Model], given: Mapping[str, list[str]]) -> Model:
    """Return the parameters of a query.

    Args:
        model: what there may be.
        given: the values of each parameter.

    Raises:
        Wrong: one is unknown, given twice, or something else than it is to be.
    """
    for name, values in given.items():
        if len(values) > 1:
            raise Wrong(f"{printable(name)[:120]}: found {len(values)} values, expected one")
    return checked(model, {name: values[0] for name, values in given.items()})


def _sentence(model: type[BaseModel], detail: ErrorDetails) -> str:
    place, kind, found = detail["loc"], detail["type"], detail["input"]
    name = str(place[0]) if place else ""
    known = list(model.model_fields)
    if kind == "extra_forbidden":
        takes = f"expected one of {', '.join(known)}" if known else "it takes nothing"
        return f"{printable(name)[:120]} is not known: {takes}{nearest(name[:120], known)}"
    field = model.model_fields.get(name)
    about = f" ({field.description})" if field is not None and field.description else ""
    if kind == "missing":
        return f"{name}: found nothing, expected a value{about}"
    if kind == "value_error":
        return f"{f'{name}: ' if name else ''}{printable(str(detail['ctx']['error']))}"
    key = name + "".join(f"[{part}]" for part in place[1:] if isinstance(part, int))
    expected = _EXPECTED.get(kind, "another value").format_map(detail.get("ctx", {}))
    return f"{key}: found {describe(found)}, expected {expected}{about}"


def document(raw: bytes) -> object:
    """Return the JSON of a body; an empty one is an empty object.

    Raises:
        Wrong: it is none.
    """
    if not raw.strip():
        return {}
    try:
        return json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Wrong(f"the body is no JSON: {printable(why)[:200]}") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
