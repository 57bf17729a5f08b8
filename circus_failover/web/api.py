"""The JSON API below /api/v1: routes, made from the tables of `operations`, and how each request is answered.

It decides nothing itself: what is read comes from `reads`, what is done is done by circusd, and who may ask
is for `handler`. Whatever comes in a URL, a query or a body, the answer is JSON; a no is one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from circus_failover.problems import describe, nearest, printable
from circus_failover.web import openapi
from circus_failover.web.checking import Wrong, checked, document, parameters
from circus_failover.web.handler import ConsoleHandler
from circus_failover.web.link import NoAnswer, Refused, Unreachable
from circus_failover.web.operations import BASE, BY_NAME, READS, Read, Verb
from circus_failover.web.reads import Asked, NotPossible, NotThere, host_named, part, shown
from circus_failover.words import Role

_LENGTH_ONLY = frozenset(("text", "task", "keys"))
"""Of these properties the audit log says how long they are: they may hold secrets."""
_KEYS_ONLY = frozenset(("options",))


def routes() -> list[tuple[Any, ...]]:
    """Return the routes of the API, as tornado takes them."""
    found: list[tuple[Any, ...]] = [
        (re.sub(r"\{\w+\}", "([^/]+)", BASE + read.path), ReadHandler, {"read": read}) for read in READS
    ]
    found.append((rf"{BASE}/hosts/([^/]+)/verbs/([^/]+)", VerbHandler))
    found.append((rf"{BASE}/openapi\.json", DocumentHandler))
    found.append((rf"{BASE}/hosts/.*", NothingHandler))
    return found


@dataclass(frozen=True)
class Failure:
    """Why a request is not answered as it wished."""

    status: int
    outcome: str
    """In one word, for the audit log."""
    reason: str
    answer: Mapping[str, Any] | None = None
    """What circusd said, when it refused."""

    def as_json(self) -> dict[str, Any]:
        """Return what the client gets."""
        return {"error": self.reason, **({} if self.answer is None else {"answer": self.answer})}


class NotAllowed(Exception):
    """Not with the role of whoever asks; the text is a sentence."""


_FAILURES = (Wrong, NotThere, NotPossible, NotAllowed, Refused, Unreachable)


def failure(error: Exception) -> Failure:
    """Return what a client is told of an error that is no mistake of ours."""
    if isinstance(error, Refused):
        reason = _reason(error)
        return Failure(409, "refused", reason, {**shown(error.answer), "reason": reason})
    for kind, status, outcome in (
        (Wrong, 400, "invalid"),
        (NotAllowed, 403, "forbidden"),
        (NotThere, 404, "unknown"),
        (NotPossible, 409, "refused"),
        (NoAnswer, 504, "no-answer"),
        (Unreachable, 503, "unreachable"),
    ):
        if isinstance(error, kind):
            return Failure(status, outcome, str(error))
    raise error


def _reason(error: Refused) -> str:
    """Return circusd's reason; where something failed inside it, Circus (0.19) repeats the whole message."""
    trace = str(error.answer.get("tb") or "").strip().splitlines()
    return f"circusd failed: {printable(trace[-1])[:500]}" if trace else str(error)


class ApiHandler(ConsoleHandler):
    """Answers with JSON; methods that it does not have are refused with those that it has."""

    allows: ClassVar[str] = "GET"

    def refuse_method(self, *parts: str) -> Awaitable[None] | None:
        """Answer a method that there is not."""
        self.set_header("Allow", self.allows)
        self.fail(405, f"{self.request.method} is not possible here: {self.allows} is")
        return None

    head = get = post = delete = patch = put = options = refuse_method

    def give_up(self, why: Failure) -> None:
        """Answer that it is not possible, with all that circusd said of it."""
        self.answer(why.as_json(), why.status)


class ReadHandler(ApiHandler):
    """Answers one of the reads."""

    def initialize(self, read: Read) -> None:
        """Take which one it is."""
        self.read = read

    async def get(self, *parts: str) -> None:
        """Answer it."""
        try:
            host = host_named(self.console, parts[0]) if parts else None
            name = part(parts[1]) if len(parts) > 1 else ""
            query = parameters(self.read.query, self._parameters())
            found = await self.read.answer(Asked(self.console, self.role, host, name, query))
        except _FAILURES as error:
            self.give_up(failure(error))
        else:
            self.answer(found)

    def _parameters(self) -> dict[str, list[str]]:
        try:
            return {
                name: [value.decode() for value in values]
                for name, values in self.request.query_arguments.items()
            }
        except UnicodeDecodeError:
            raise Wrong("a parameter is no UTF-8") from None


class VerbHandler(ApiHandler):
    """Sends a verb to circusd, and writes down who sent it and what came of it."""

    allows = "POST"

    async def post(self, *parts: str) -> None:
        """Send it, and answer what circusd answers."""
        host, name = parts
        about: dict[str, Any] = {"host": printable(host)[:255]}
        try:
            verb = _verb(name)
            at = host_named(self.console, host)
            if verb.role is Role.OPERATOR and self.role is not Role.OPERATOR:
                raise NotAllowed(f"{verb.name} is for operators: you are signed in to look only")
            properties = checked(verb.model, document(self.request.body)).properties()
            about.update(_audited(properties))
            sent = {**properties, "by": self.who}
            answer = await at.call(verb.name, sent, verb.patience(properties))
        except _FAILURES as error:
            why = failure(error)
            self.audit(printable(name)[:40], why.outcome, **about, reason=why.reason)
            self.give_up(why)
        else:
            self.audit(verb.name, "ok", **about)
            self.answer(shown(answer))


def _verb(name: str) -> Verb:
    """Return a verb by its name.

    Raises:
        NotThere: the API has none of that name.
    """
    try:
        return BY_NAME[name]
    except KeyError:
        raise NotThere(f"there is no verb {describe(name)}{nearest(name[:40], BY_NAME)}") from None


def _audited(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the audit log says of the properties of a verb."""
    said: dict[str, Any] = {}
    for key, value in properties.items():
        if key in _LENGTH_ONLY:
            said[f"{key}_characters"] = len(value)
        elif key in _KEYS_ONLY:
            said[key] = ",".join(value)
        else:
            said[key] = ",".join(value) if isinstance(value, list) else value
    return said


class DocumentHandler(ApiHandler):
    """The OpenAPI document."""

    def get(self, *parts: str) -> None:
        """Answer it."""
        self.answer(openapi.document(self.console.version))


class NothingHandler(ApiHandler):
    """What is below a host and is none of the above."""

    def get(self, *parts: str) -> None:
        """Say so."""
        self.fail(404, f"there is nothing at {describe(self.request.path)}")

    post = get
