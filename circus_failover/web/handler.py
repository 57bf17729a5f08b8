"""What every answer of the console goes through: who asks, what they may, and the headers of the answer."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tornado.web import HTTPError, RequestHandler

from circus_failover.web.access import Access, Session
from circus_failover.web.audit import Audit
from circus_failover.web.denied import Denied
from circus_failover.web.options import Options
from circus_failover.words import Role

if TYPE_CHECKING:
    from circus_failover.web.hosts import Hosts
    from circus_failover.web.terminal import Terminals

MOST_BODY_BYTES = 6 * 1024 * 1024
"""Of one request: the longest task (4 MiB), as JSON writes it."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

logger = logging.getLogger(__name__)


@dataclass
class Console:
    """The parts of a running console, as `application.settings["console"]`."""

    options: Options
    hosts: Hosts
    access: Access
    audit: Audit
    terminals: Terminals
    version: str


class ConsoleHandler(RequestHandler):
    """Checks who asks before anything is done, and answers in JSON; also in front of WebSocketHandler."""

    needs: ClassVar[Role | None] = Role.VIEWER
    """What role it takes; None: no sign-in at all."""
    session: Session | None = None

    @property
    def console(self) -> Console:
        """The console this belongs to."""
        found: Console = self.application.settings["console"]
        return found

    @property
    def role(self) -> Role:
        """What whoever asks may do; only where a sign-in is needed."""
        assert self.session is not None
        return self.session.role

    @property
    def who(self) -> str:
        """Who asks, as circusd and the audit log are told: `web:ROLE@ADDRESS`."""
        assert self.session is not None
        return self.session.who

    @property
    def address(self) -> str:
        """The IP address of the client; of a proxy's client where the proxy is believed."""
        return self.console.access.origin.address(self.request)

    def still_signed_in(self) -> bool:
        """Say whether the session is still one: for what lasts longer than a request."""
        return self.session is not None and self.console.access.is_current(self.session)

    def set_default_headers(self) -> None:
        """Set what every answer has."""
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Let only those through who may ask this."""
        access = self.console.access
        try:
            access.origin.check(self.request)
            if len(self.request.body) > MOST_BODY_BYTES:
                raise Denied(413, f"a request holds at most {MOST_BODY_BYTES} bytes", "size")
            if self.needs is None:
                return
            self.session = access.session(self.request)
            if self.needs is Role.OPERATOR and self.session.role is not Role.OPERATOR:
                raise Denied(403, "this is for operators: you are signed in to look only", "role")
        except Denied as denied:
            self.deny(denied)

    def deny(self, denied: Denied) -> None:
        """Answer that it is refused, and write down what is no mere visit without a sign-in."""
        if denied.kind is not None:
            self.console.audit.refused(
                self.session.who if self.session else None,
                self.address,
                denied.kind,
                method=self.request.method,
                path=self.request.path,
            )
        if denied.retry_after is not None:
            self.set_header("Retry-After", str(max(1, math.ceil(denied.retry_after))))
        if denied.status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        self.fail(denied.status, str(denied))

    def fail(self, status: int, reason: str) -> None:
        """Answer with a sentence that says why not, and end the request."""
        self.answer({"error": reason}, status)

    def audit(self, action: str, outcome: str, /, **fields: object) -> None:
        """Write down what somebody asked for.

        Args:
            action: the verb.
            outcome: what came of it, in a word.
            fields: what it was about; never a task's text, never a token.
        """
        self.console.audit.action(self.who, self.address, action, outcome, **fields)

    def answer(self, data: Mapping[str, Any] | Sequence[Any], status: int = 200) -> None:
        """End the request with JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        # Lone surrogates stay escapes, as ASCII: what a log or a pane had in it is not always Unicode.
        self.finish(json.dumps(data, separators=(",", ":")))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer what went wrong on the way, without its inside."""
        error = kwargs.get("exc_info", (None, None))[1]
        reason = error.log_message if isinstance(error, HTTPError) and error.log_message else self._reason
        if status_code >= 500 and not isinstance(error, HTTPError):
            reason = "the console failed at this; its log says how"
        self.fail(status_code, str(reason))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what failed, but not who was refused (the audit log has that)."""
        if not isinstance(value, HTTPError):
            method, path = self.request.method, self.request.path
            logger.error("%s %r failed", method, path, exc_info=(typ, value, tb))

    def compute_etag(self) -> str | None:
        """Do without: what is said here is never the same twice, and is not kept."""
        return None
