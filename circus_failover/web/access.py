"""Who asks, and whether they may: sessions, tokens and codes.

Every request is checked here before anything is done for it; from where it comes is for `origin`. A session
is a cookie that is signed with the secret of the console's folder, so it outlives the console and ends when
the tokens are renewed, and a CSRF token: neither grants anything without the other. Nothing here answers a
request or writes a log; whoever asks is told no more than they need to do better.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from tornado.httputil import HTTPServerRequest
from tornado.web import create_signed_value, decode_signed_value

from circus_failover.policy import sign_in
from circus_failover.web.denied import Denied
from circus_failover.web.options import Options
from circus_failover.web.origin import Origin, name_and_port
from circus_failover.web.tokens import TokenFolder, Tokens, TokensUnusable
from circus_failover.words import Role

COOKIE = "failover_session"
CSRF_HEADER = "X-CSRF-Token"
CSRF_PROTOCOL = "csrf."
"""What the CSRF token follows in a subprotocol of a web socket, of which pages can set no header."""
CODE_SECS = 60.0
"""For how long a one-time code can be used."""
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_LONGEST_TOKEN = 1000
_DAY = 86400.0


@dataclass(frozen=True)
class Session:
    """Somebody who is signed in."""

    id: str
    """Empty for whoever sends a token with each request."""
    role: Role
    who: str
    """As circusd and the audit log are told: `web:ROLE@ADDRESS`."""
    expires_at: float | None
    """Epoch; None for whoever sends a token with each request."""
    csrf: str | None
    """What a page has to send beside the cookie, with every request; None where no cookie is used."""
    secret: str
    """What of the console's secrets it stands on; it is over when that is another one."""


class Access:
    """Decides about requests.

    Args:
        options: how the console is called, and whether a proxy is believed.
        limits: how often a sign-in may fail.
    """

    def __init__(self, options: Options, limits: sign_in.Limits | None = None) -> None:
        self.options = options
        self.origin = Origin(options)
        self._limits = limits or sign_in.Limits()
        self._attempts = sign_in.Attempts()
        self._wrong_bearers = sign_in.Attempts()
        self._folder: TokenFolder | None = None
        self._stamp: tuple[object, ...] = ()
        self._tokens: Tokens | None = None
        self._trouble = "the state directory is not known yet"
        self._ended: dict[str, float] = {}
        self._listeners: list[Callable[[], None]] = []

    # -- the secrets -------------------------------------------------------------------------------------

    def use(self, folder: TokenFolder) -> None:
        """Take the secrets of a folder from now on.

        Raises:
            TokensUnusable: they cannot be used; nobody can sign in.
        """
        self._folder = folder
        folder.prepare()
        self._stamp = ()
        self._read()
        if self._tokens is None:
            raise TokensUnusable(self._trouble)

    @property
    def usable(self) -> bool:
        """Whether the secrets were usable when they were last looked at."""
        return self._tokens is not None

    def look(self) -> None:
        """Look whether the secrets are others, or a session ended; who listens is told of it."""
        if self._read():
            for listener in [*self._listeners]:
                listener()

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have something called when sessions may have ended (`is_current` says which).

        Returns:
            What to call when that is not wanted any more.
        """
        self._listeners.append(listener)

        def forget() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return forget

    def _read(self) -> bool:
        """Take in the files if they are others than before, and say whether they are."""
        if self._folder is None:
            return False
        stamp = self._folder.stamp()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._tokens = self._folder.read()
            # What could not be written is known here alone.
            self._ended.update(self._folder.ended())
        except TokensUnusable as error:
            # Unreadable is not "as before": nobody is let in by what may have been renewed.
            self._tokens = None
            self._trouble = str(error)
        return True

    def _secrets(self) -> Tokens:
        self._read()
        if self._tokens is None:
            # Where the files are is not for strangers.
            raise Denied(503, "nobody can sign in now: the console's log says why")
        return self._tokens

    # -- sessions ----------------------------------------------------------------------------------------

    def cookie_name(self, request: HTTPServerRequest) -> str:
        """Return the name of the cookie: browsers share cookies between the ports of one host."""
        port = name_and_port(request.headers.get("Host", ""))[1]
        return f"{COOKIE}_{port}" if port else COOKIE

    def session(self, request: HTTPServerRequest) -> Session:
        """Return who is signed in, once everything is checked that this request needs.

        Raises:
            Denied: nobody is, or the request is not one of their own page.
        """
        bearer = _bearer(request)
        if bearer is not None:
            return self._by_token(request, bearer)
        found = self._by_cookie(request)
        if found is None:
            raise Denied(401, "not signed in: sign in with a token, or run `failoverctl web`")
        # Whoever serves another port of this host name is given the cookie too (RFC 6265, 8.5), and can send
        # what they like with it: only what pages of another origin cannot read tells them apart.
        if not _equal(_csrf_sent(request), found.csrf or ""):
            raise Denied(
                401,
                f"not signed in: a cookie alone opens nothing, the console's pages send {CSRF_HEADER} "
                "beside it; sign in again, or send a token as scripts do",
                "csrf",
            )
        unsafe = request.method not in SAFE_METHODS
        # A web socket is no exception for browsers: any page may open one, and the cookie goes with it.
        if (unsafe or "Sec-WebSocket-Key" in request.headers) and "Origin" not in request.headers:
            raise Denied(
                403, "the header Origin is missing: a page sends it, a script uses a token", "origin"
            )
        return found

    def is_current(self, session: Session) -> bool:
        """Say whether somebody who was signed in still is."""
        try:
            tokens = self._secrets()
        except Denied:
            return False
        if session.expires_at is None:
            return session.secret == _fingerprint(_token_of(tokens, session.role))
        over = session.id in self._ended or session.expires_at <= time.time()
        return not over and session.secret == _fingerprint(tokens.secret)

    def sign_in(
        self, request: HTTPServerRequest, *, token: str | None = None, code: str | None = None
    ) -> tuple[Session, str]:
        """Sign somebody in by a token or a one-time code.

        Returns:
            The session, and the value of its cookie.

        Raises:
            Denied: it is no token and no code of this console, or too many were tried.
        """
        tokens = self._secrets()
        self._may_try(request)
        role = self._role_of(tokens, token) if token is not None else self._redeem(code or "")
        self._tried(request, role)
        if role is None:
            what = (
                "this is no token of this console"
                if token is not None
                else ("this code was used already, or is too old: run `failoverctl web` again")
            )
            raise Denied(401, what, "token" if token is not None else "code")
        one, until = secrets.token_urlsafe(16), time.time() + self.options.sign_in_days * _DAY
        session = Session(
            one, role, self._who(role, request), until, _csrf(tokens, one), _fingerprint(tokens.secret)
        )
        return session, sign(tokens, "session", one, role, until)

    def sign_out(self, session: Session) -> None:
        """End a session before its time, for every page and every copy of its cookie."""
        if session.expires_at is not None:
            self._end(session.id, session.expires_at)
            for listener in [*self._listeners]:
                listener()

    def make_code(self, role: Role) -> str:
        """Return a code that signs in once, within `CODE_SECS`.

        Raises:
            Denied: nobody can be signed in now.
        """
        return new_code(self._secrets(), role)

    def _by_cookie(self, request: HTTPServerRequest) -> Session | None:
        """Return the session of a request's cookie; None where there is none, or it is over.

        That is no sign-in yet: the cookie is one half of it.
        """
        tokens = self._secrets()
        cookie = request.cookies.get(self.cookie_name(request))
        if cookie is None:
            return None
        content = self._signed("session", cookie.value, self.options.sign_in_days)
        if content is None:
            return None
        one, role, until = content
        return Session(
            one, role, self._who(role, request), until, _csrf(tokens, one), _fingerprint(tokens.secret)
        )

    def _by_token(self, request: HTTPServerRequest, bearer: str) -> Session:
        """Return who sends a token with each request.

        A right one is always taken, and wrong ones do not count as sign-ins: a script with an old token must
        not lock out the operator on the same machine. 256 random bits need no protection by a limit.
        """
        tokens = self._secrets()
        role = self._role_of(tokens, bearer)
        if role is None:
            address, now = self.origin.address(request), time.monotonic()
            _check(self._wrong_bearers, address, now, self._limits)
            self._wrong_bearers = sign_in.failed(self._wrong_bearers, address, now, self._limits)
            raise Denied(401, "this is no token of this console", "token")
        secret = _fingerprint(_token_of(tokens, role))
        return Session("", role, self._who(role, request), None, None, secret)

    def _role_of(self, tokens: Tokens, given: str) -> Role | None:
        # Both are compared, whichever it is: how long it takes says nothing.
        found = {role: _equal(given, _token_of(tokens, role)) for role in Role}
        return next((role for role in Role if found[role]), None)

    def _redeem(self, code: str) -> Role | None:
        content = self._signed("code", code, 1.0)
        if content is None:
            return None
        one, role, until = content
        self._end(one, until)
        if self._folder is not None:
            self._folder.remove_forward()
        return role

    def _signed(self, what: str, value: str, days: float) -> tuple[str, Role, float] | None:
        """Return what was signed as (id, role, until); None when it is not ours, or is over."""
        found = decode_signed_value(self._secrets().secret, what, value, max_age_days=days, min_version=2)
        if found is None:
            return None
        try:
            content = json.loads(found)
            one, role, until = str(content["id"]), Role(content["role"]), float(content["until"])
        except (ValueError, KeyError, TypeError):
            return None
        return None if one in self._ended or until <= time.time() else (one, role, until)

    def _end(self, one: str, until: float) -> None:
        now = time.time()
        self._ended = {key: value for key, value in self._ended.items() if value > now}
        self._ended[one] = until
        if self._folder is not None:
            # On a full disk it is over all the same, for as long as this process lives.
            with contextlib.suppress(TokensUnusable):
                self._folder.keep_ended(self._ended, now)

    def _may_try(self, request: HTTPServerRequest) -> None:
        _check(self._attempts, self.origin.address(request), time.monotonic(), self._limits)

    def _tried(self, request: HTTPServerRequest, role: Role | None) -> None:
        note = sign_in.failed if role is None else sign_in.succeeded
        self._attempts = note(self._attempts, self.origin.address(request), time.monotonic(), self._limits)

    def _who(self, role: Role, request: HTTPServerRequest) -> str:
        return f"web:{role}@{self.origin.address(request)}"


def new_code(tokens: Tokens, role: Role) -> str:
    """Return a code that signs in once, within `CODE_SECS`, wherever these tokens are used."""
    return sign(tokens, "code", secrets.token_urlsafe(16), role, time.time() + CODE_SECS)


def sign(tokens: Tokens, what: str, one: str, role: Role, until: float) -> str:
    """Return a signed value.

    Args:
        tokens: with the secret to sign with.
        what: what it is for; nothing else accepts it.
        one: its id.
        role: what it makes its bearer.
        until: epoch.
    """
    content = json.dumps({"id": one, "role": str(role), "until": until})
    return create_signed_value(tokens.secret, what, content, version=2).decode()


def _check(attempts: sign_in.Attempts, address: str, now: float, limits: sign_in.Limits) -> None:
    found = sign_in.verdict(attempts, address, now, limits)
    if not found.allowed:
        wait = math.ceil(found.retry_after)
        raise Denied(429, f"{found.reason}: try again in {wait} s", "rate", found.retry_after)


def _bearer(request: HTTPServerRequest) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _csrf_sent(request: HTTPServerRequest) -> str:
    """Return the CSRF token that a page sent: as a header, or as a subprotocol of its web socket."""
    offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    found = (one.removeprefix(CSRF_PROTOCOL) for one in offered if one.startswith(CSRF_PROTOCOL))
    return request.headers.get(CSRF_HEADER) or next(found, "")


def _token_of(tokens: Tokens, role: Role) -> str:
    return tokens.operator if role is Role.OPERATOR else tokens.viewer


def _equal(given: str, expected: str) -> bool:
    """Compare in a time that does not tell how much was right; an empty one is never right."""
    same = hmac.compare_digest(given[:_LONGEST_TOKEN].encode("utf-8", "replace"), expected.encode())
    return same and bool(expected)


def _csrf(tokens: Tokens, one: str) -> str:
    return hmac.new(tokens.secret.encode(), f"csrf:{one}".encode(), hashlib.sha256).hexdigest()


def _fingerprint(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
