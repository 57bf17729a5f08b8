"""What the tests in the browser rely on: that a page which does wrong is found out."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Route

from tests.browser.pages import PHONE, Watched
from tests.browser.test_reach import UNFIT, UNNAMED

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; require-trusted-types-for 'script'"


def shown(browser: Browser, html: str, script: str = "") -> Watched:
    """Open a page of this text, with a script of its own, under a policy like the console's."""

    def answer(route: Route) -> None:
        if route.request.url.endswith(".js"):
            route.fulfill(body=script, content_type="text/javascript")
        else:
            head = "<!doctype html><script src='/a.js' defer></script>"
            policy = {"Content-Security-Policy": POLICY}
            route.fulfill(body=head + html, headers={"Content-Type": "text/html", **policy})

    watched = Watched(browser, "http://console.test", viewport=PHONE)
    watched.context.route("**/*", answer)
    watched.page.goto("/")
    watched.page.wait_for_function("document.readyState === 'complete'")
    return watched


def test_what_goes_wrong_on_a_page_is_a_finding(browser: Browser) -> None:
    html = """<p onclick='x()'></p><p style='color: red'></p><img src='http://elsewhere.test/x.png'>"""
    script = """
        setTimeout(() => { document.querySelector('p').innerHTML = '<b>x</b>'; });
        Promise.reject(new Error('forgotten'));
        console.error('said so');
        alert('owned');
        setTimeout(() => { document.title = 'over'; });
        throw new Error('broken');
    """
    watched = shown(browser, html, script)
    try:
        watched.page.wait_for_function("document.title === 'over'")
        with pytest.raises(AssertionError) as found:
            watched.verify()
        for text in (
            *("inline event handler", "inline style", "elsewhere.test", "TrustedHTML"),
            *("forgotten", "said so", "owned", "broken"),
        ):
            assert text in str(found.value)
    finally:
        watched.close()


def test_a_page_that_does_nothing_wrong_has_no_findings_and_one_that_nobody_can_use_is_seen(
    browser: Browser,
) -> None:
    # Styles by a script's own hand are no violation (CSP level 3: only style attributes and elements are).
    wide = "document.querySelector('#wide').style.width = '900px'"
    watched = shown(browser, "<main><button>Go</button><p id=wide>x</p><input id=a></main>", wide)
    try:
        watched.verify()
        unnamed = watched.page.evaluate(UNNAMED)
        assert len(unnamed) == 1 and "input" in unnamed[0]
        assert any("wide" in one for one in watched.page.evaluate(UNFIT))
    finally:
        watched.close()
