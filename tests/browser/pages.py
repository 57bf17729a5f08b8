"""Pages of the console in a real Chromium: opened, signed in, and watched for what must never happen on one.

A page error, an error on the console (a violation of the Content-Security-Policy is one) and a crash are
findings; a request that the server refuses is one too, unless the test said that it will come. This module
knows no circusd and asserts nothing itself, but for `Watched.verify`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.browser import chromium

WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}
PAGE_MS = 15_000
"""How long a page may take to show something, where no other bound is the subject: machines are busy."""
REFUSED = re.compile(r"status of (\d+)")
UNKNOWN = "HTTP Authentication failed"
"""What Chromium (156) says of a web socket that is answered 401."""
NOBODY = "ERR_CONNECTION_REFUSED"


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Run one Chromium until the context ends.

    Raises:
        FileNotFoundError: there is none; the text says what to do.
    """
    program = chromium.find()
    if program is None:
        raise FileNotFoundError(chromium.missing())
    with sync_playwright() as playwright:
        arguments = list(chromium.ARGUMENTS)
        browser = playwright.chromium.launch(executable_path=str(program), headless=True, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """One page in a context of its own, and what it complained of."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        """Open it.

        Args:
            browser: where.
            url: the console's address; paths are given without it.
            options: of playwright's `new_context`, as `viewport` or `color_scheme`.
        """
        self.context: BrowserContext = browser.new_context(base_url=url, **{"viewport": WIDE, **options})
        self.context.set_default_timeout(PAGE_MS)
        self.page: Page = self.context.new_page()
        self.findings: list[str] = []
        self.allowed: set[int] = set()
        self.gone_allowed = False
        self.page.on("pageerror", lambda error: self.findings.append(f"page error: {error}"))
        self.page.on("crash", lambda page: self.findings.append("the page crashed"))
        self.page.on("console", self._said)
        self.page.on("dialog", self._dialog)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error" or "Content Security Policy" in message.text:
            refused = REFUSED.search(message.text)
            status = int(refused[1]) if refused else 401 if UNKNOWN in message.text else None
            if self.gone_allowed and NOBODY in message.text:
                return
            if status not in self.allowed:
                self.findings.append(f"{message.text} ({message.location.get('url', '')})")

    def _dialog(self, dialog: Any) -> None:
        self.findings.append(f"a dialog of the browser opened: {dialog.message}")
        dialog.dismiss()

    def allow(self, *statuses: int) -> None:
        """Say that the server will refuse requests of this page with one of these statuses."""
        self.allowed.update(statuses)

    def allow_gone(self) -> None:
        """Say that the console will be away while this page is open."""
        self.gone_allowed = True

    def sign_in(self, token: str, path: str = "/") -> Page:
        """Sign in by the sign-in page and go to a path; return the page."""
        self.page.goto("/sign-in")
        self.page.get_by_test_id("sign-in-token").fill(token)
        self.page.get_by_test_id("sign-in-submit").click()
        self.page.wait_for_url(lambda url: "/sign-in" not in url)
        if path != "/":
            self.page.goto(path)
        return self.page

    def verify(self) -> None:
        """Fail when the page complained of something."""
        with contextlib.suppress(Exception):
            self.page.evaluate("1")  # what the browser has said until now has been heard after this
        assert not self.findings, "\n".join(self.findings)

    def close(self) -> None:
        """Close it."""
        self.context.close()
