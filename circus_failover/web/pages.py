"""What a browser loads before anybody is signed in: the page itself, its files, and /healthz.

There is one page; which part of it is shown follows from the address, in the browser. Nothing in it comes
from a fleet.
"""

from __future__ import annotations

import mimetypes
import os
import re
import secrets
from pathlib import Path
from typing import Any

from tornado.web import StaticFileHandler

from circus_failover.web.denied import Denied
from circus_failover.web.handler import HEADERS, ConsoleHandler

STATIC = Path(__file__).with_name("static")
_INDEX = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""By the ending, since the tables of machines differ: a browser runs no module of another type."""
PAGES = (
    r"/",
    r"/agents/[^/]+/[^/]+",
    r"/deaths",
    r"/accounts",
    r"/work",
    r"/circus",
    r"/circus/[^/]+/[^/]+",
    r"/sign-in",
)
"""What has a page; the modules have the same list (static/app.js)."""


def routes(static: Path = STATIC) -> list[tuple[Any, ...]]:
    """Return the routes of this module; the last one takes whatever no other takes.

    Args:
        static: the folder with the files.
    """
    where = {"static": static}
    return [
        (r"/healthz", HealthHandler),
        (r"/static/(.*)", FileHandler, {"path": str(static)}),
        *((page, IndexHandler, where) for page in PAGES),
        (r"/.*", NoPageHandler, where),
    ]


def policy(nonce: str, secure: bool, host: str) -> str:
    """Return the Content-Security-Policy of the page.

    Args:
        nonce: of this load of the page; for the style elements that the terminal makes.
        secure: whether the browser uses https.
        host: as the browser calls the console: of its web socket (Safari 15 does not take `self` for that).
    """
    return (
        "default-src 'none'; script-src 'self'; "
        f"style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; font-src 'self'; "
        f"connect-src 'self' {'wss' if secure else 'ws'}://{host}; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


class IndexHandler(ConsoleHandler):
    """The page."""

    needs = None
    status = 200

    def initialize(self, static: Path) -> None:
        """Take where its text is."""
        self._static = static

    def get(self) -> None:
        """Answer the page, with a nonce of its own."""
        nonce = secrets.token_urlsafe(16)
        secure = self.console.access.origin.is_secure(self.request)
        # The name was found to be the console's own, but what else a header has is anybody's.
        host = re.sub(r"[^A-Za-z0-9.:\[\]-]", "", self.request.host)
        self.set_header("Content-Security-Policy", policy(nonce, secure, host))
        self.set_header("Content-Type", _TYPES[".html"])
        self.set_status(self.status)
        self.finish((self._static / _INDEX).read_text(encoding="utf-8").replace("{{ nonce }}", nonce))

    head = get


class NoPageHandler(IndexHandler):
    """What is at no address: a browser gets the page, which says so; whoever asks for else, a sentence."""

    status = 404

    def prepare(self) -> None:
        """Tell a browser that shows a page from everything else; by a wrong name nobody gets so far."""
        super().prepare()
        api = self.request.path == "/api" or self.request.path.startswith("/api/")
        asks = self.request.method in ("GET", "HEAD")
        shows = asks and not api and "text/html" in self.request.headers.get("Accept", "")
        if not self._finished and not shows:
            self.fail(404, "there is nothing at this address")


class HealthHandler(ConsoleHandler):
    """`/healthz`: that the console serves; of circusd it says nothing."""

    needs = None

    def get(self) -> None:
        """Say so."""
        self.answer({"status": "ok"})

    head = get


class FileHandler(StaticFileHandler):
    """The modules, styles and libraries; a browser asks each time whether its copy is still right."""

    def set_default_headers(self) -> None:
        """Set what every answer has."""
        self.clear_header("Server")
        for name, value in {**HEADERS, "Cache-Control": "no-cache"}.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Answer to the console's own names alone."""
        console = self.application.settings["console"]
        try:
            console.access.origin.check(self.request)
        except Denied as denied:
            console.audit.refused(
                None,
                console.access.origin.address(self.request),
                denied.kind or "place",
                method=self.request.method,
                path=self.request.path,
            )
            self.set_status(denied.status)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.set_header("Cache-Control", "no-store")
            self.finish(f"{denied}\n")

    def get_content_type(self) -> str:
        """Return the type by the file's ending."""
        assert self.absolute_path is not None
        ending = os.path.splitext(self.absolute_path)[1].lower()
        return _TYPES.get(ending) or mimetypes.guess_type(self.absolute_path)[0] or "application/octet-stream"

    def get_cache_time(self, path: str, modified: Any, mime_type: str) -> int:
        """Have nothing kept unasked, also with `?v=`."""
        return 0

    def compute_etag(self) -> str | None:
        """Return what is another one for another file; tornado would go by the first content it ever saw."""
        assert self.absolute_path is not None
        found = os.stat(self.absolute_path)
        return f'"{found.st_mtime_ns:x}-{found.st_size:x}"'

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer in one line."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(f"{status_code} {self._reason}\n")
