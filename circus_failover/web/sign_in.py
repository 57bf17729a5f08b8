"""`/api/v1/session`: signing in and out, who is signed in, and one-time codes.

What is right and how often may be tried is decided in `access`; here it is asked for and answered.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from circus_failover.web.access import CODE_SECS, Session
from circus_failover.web.denied import Denied
from circus_failover.web.handler import ConsoleHandler
from circus_failover.words import Role

_MOST_BYTES = 8192


def routes() -> list[tuple[str, Any]]:
    """Return the routes of signing in."""
    return [(r"/api/v1/session", SessionHandler), (r"/api/v1/session/code", CodeHandler)]


class SessionHandler(ConsoleHandler):
    """GET: who is signed in; POST: sign in; DELETE: sign out."""

    def prepare(self) -> None:
        """Check who asks, but for whoever wants to sign in."""
        if self.request.method == "POST":
            self.needs = None  # type: ignore[misc]
        super().prepare()

    def get(self) -> None:
        """Answer who is signed in, and with what role."""
        assert self.session is not None
        self.answer(self._of(self.session))

    def post(self) -> None:
        """Sign in by `{"token": ...}` or `{"code": ...}`."""
        access, audit = self.console.access, self.console.audit
        # A form of another page can send no JSON without being asked for it first (CORS), so nobody is
        # signed in unawares.
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            self.fail(400, "expected a JSON object, as application/json")
            return
        try:
            if len(self.request.body) > _MOST_BYTES:
                raise ValueError
            given = json.loads(self.request.body)
            (how, value), *others = given.items()
            if others or how not in ("token", "code") or not isinstance(value, str) or not value:
                raise ValueError
        except (ValueError, AttributeError, RecursionError):
            self.fail(400, 'expected {"token": TEXT} or {"code": TEXT}')
            return
        try:
            session, cookie = access.sign_in(self.request, **{how: value.strip()})
        except Denied as denied:
            self.deny(denied)
            return
        self.set_cookie(
            access.cookie_name(self.request),
            cookie,
            expires=session.expires_at,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=access.origin.is_secure(self.request),
        )
        audit.signed_in(session.who, self.address, how, "in")
        # Said here and nowhere else: whoever has the cookie alone must not be able to ask for it.
        self.answer({**self._of(session), "csrf": session.csrf})

    def delete(self) -> None:
        """Sign out: the session is over, on whatever page it is used."""
        assert self.session is not None
        access = self.console.access
        access.sign_out(self.session)
        self.clear_cookie(access.cookie_name(self.request), path="/", httponly=True, samesite="Strict")
        self.console.audit.signed_in(self.who, self.address, "session", "out")
        self.answer({"signed_out": True})

    def _of(self, session: Session) -> dict[str, Any]:
        return {
            "role": str(session.role),
            "who": session.who,
            "expires_at": session.expires_at,
            "version": self.console.version,
            "hosts": [endpoint.name for endpoint in self.console.options.endpoints],
        }


class CodeHandler(ConsoleHandler):
    """POST: make a one-time code for the role of whoever asks, or with `{"role": "viewer"}` for that one."""

    def post(self) -> None:
        """Answer the code, and the address that signs in with it."""
        access = self.console.access
        try:
            role = self._asked()
            if role is Role.OPERATOR and self.role is not Role.OPERATOR:
                raise Denied(403, "you are signed in to look only, and can make codes for that alone", "role")
            code = access.make_code(role)
        except ValueError:
            self.fail(400, 'expected nothing, or {"role": "operator"} or {"role": "viewer"}')
            return
        except Denied as denied:
            self.deny(denied)
            return
        self.console.audit.code_made(self.who, self.address, role)
        scheme = "https" if access.origin.is_secure(self.request) else "http"
        url = f"{scheme}://{self.request.headers['Host']}/sign-in#code={quote(code)}"
        self.answer({"code": code, "url": url, "expires_in": CODE_SECS})

    def _asked(self) -> Role:
        if not self.request.body.strip():
            return self.role
        try:
            given = json.loads(self.request.body)
        except RecursionError:
            raise ValueError from None
        if not isinstance(given, dict) or given.keys() - {"role"}:
            raise ValueError
        return Role(given.get("role", self.role))
