"""From where the console is asked: by which name, from which page, through which proxy."""

from __future__ import annotations

from pathlib import Path

import pytest

from circus_failover.web.options import Options
from circus_failover.web.origin import Origin, beyond_loopback, is_loopback, name_and_port
from tests.web.served import EVERYWHERE, LIVE, READ, SESSION, UPGRADE, VERB, Served, serve

# -- by which name, and from which page --------------------------------------------------------------


@pytest.mark.parametrize("path", EVERYWHERE)
def test_a_name_that_somebody_elses_dns_leads_here_is_answered_nowhere(served: Served, path: str) -> None:
    answer = served.get(path, Host="evil.example:8787", Authorization=served.bearer())
    assert answer.status_code == 421
    assert served.audited()[-1]["outcome"] == "host"


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("127.0.0.1:1", True),
        ("localhost", True),
        ("LOCALHOST:99", True),
        ("localhost.", True),
        ("[::1]:1", True),
        ("127.9.9.9", True),
        ("fleet.example.org", True),
        ("FLEET.example.org:443", True),
        ("x.fleet.example.org", False),
        ("fleet.example.org.evil.example", False),
        ("localhost.evil.example", False),
        ("192.0.2.7", False),
        ("0.0.0.0", False),
        ("", False),
        ("127.0.0.1:x", False),
        ("evil.example@127.0.0.1", False),
        ("127.0.0.1,evil.example", False),
    ],
)
def test_the_names_that_are_answered(host: str, answered: bool) -> None:
    origin = Origin(Options(hosts=("fleet.example.org",)))
    assert origin.is_called(name_and_port(host)[0]) == answered


def test_beyond_loopback_every_address_is_answered_and_still_no_strange_name() -> None:
    origin = Origin(Options(host="0.0.0.0"))
    assert origin.is_called("192.0.2.7") and not origin.is_called("evil.example")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "https://{here}",
        "http://localhost:3000",
        "http://127.0.0.1",
        "x",
        "http://[",
    ],
)
def test_what_another_page_sends_is_refused_for_everybody(served: Served, origin: str) -> None:
    page = served.sign_in()
    origin = origin.format(here=served.netloc)
    assert served.post(VERB, {"name": "bob"}, **page.headers(Origin=origin)).status_code == 403
    assert served.post(SESSION, {"token": served.tokens.operator}, Origin=origin).status_code == 403
    assert served.get(READ, Origin=origin, Authorization=served.bearer()).status_code == 403
    assert [line["outcome"] for line in served.audited()][-3:] == ["origin"] * 3


def test_a_web_socket_of_a_page_needs_its_origin_too(served: Served) -> None:
    """Every page may open one to everywhere, and the browser sends the cookie with it."""
    page = served.sign_in()
    for origin, status in (("", 403), ("http://localhost:3000", 403)):
        assert served.get(LIVE, **page.headers(Origin=origin), **UPGRADE).status_code == status
    assert served.get(LIVE, Origin=served.url, **UPGRADE).status_code == 401


# -- behind a proxy ------------------------------------------------------------------------------------


def test_a_proxy_that_is_not_announced_is_not_believed(served: Served) -> None:
    page = served.sign_in(X_Forwarded_For="192.0.2.7", X_Forwarded_Proto="https")
    assert page.answer.json()["who"] == "web:operator@127.0.0.1"
    assert "Secure" not in page.answer.headers["Set-Cookie"]
    # Behind one, the browser's origin is https: the answer says which setting is missing.
    answer = served.post(
        SESSION, {"token": "x"}, Origin=f"https://{served.netloc}", X_Forwarded_Proto="https"
    )
    assert answer.status_code == 403 and "`proxy: true`" in answer.json()["error"]


def test_behind_a_proxy_the_client_and_its_https_are_those_that_the_proxy_names(tmp_path: Path) -> None:
    with serve(tmp_path, proxy=True, hosts=("fleet.example.org",)) as served:
        given = {
            "Host": "fleet.example.org",
            "Origin": "https://fleet.example.org",
            "X_Forwarded_Proto": "https",
            "X_Forwarded_For": "203.0.113.99, 192.0.2.7",
        }
        page = served.sign_in(**given)
        # What the client itself wrote there is not believed: the proxy adds at the right.
        assert page.answer.json()["who"] == "web:operator@192.0.2.7"
        cookie = page.answer.headers["Set-Cookie"]
        assert cookie.startswith("failover_session=") and "Secure" in cookie.split("; ")
        assert served.post(VERB, {"name": "bob"}, **page.headers(**given)).status_code == 503
        assert (
            served.post(VERB, {}, **page.headers(**{**given, "X_Forwarded_Proto": "http"})).status_code == 403
        )
        answer = served.get("/", Host="fleet.example.org", X_Forwarded_Proto="https")
        assert "wss://fleet.example.org" in answer.headers["Content-Security-Policy"]
        for number in range(5):
            given["X_Forwarded_For"] = f"10.0.0.{number}, 192.0.2.66"
            assert served.post(SESSION, {"token": "x"}, **given).status_code == 401
        assert served.post(SESSION, {"token": "x"}, **given).status_code == 429
        given["X_Forwarded_For"] = "192.0.2.67"
        assert served.post(SESSION, {"token": "x"}, **given).status_code == 401


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("", "127.0.0.1"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 127.0.0.1", "192.0.2.7"),
        ("evil, 192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, evil", "127.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("unknown", "127.0.0.1"),
        ("<b>", "127.0.0.1"),
    ],
)
def test_an_address_is_what_the_nearest_proxy_says_or_its_own(
    tmp_path: Path, forwarded: str, address: str
) -> None:
    with serve(tmp_path, proxy=True) as served:
        assert served.sign_in(X_Forwarded_For=forwarded).answer.json()["who"] == f"web:operator@{address}"


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("::ffff:192.0.2.7", False),
        ("fe80::1%eth0", False),
        ("build", False),
    ],
)
def test_what_is_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) == loopback
    assert bool(beyond_loopback([address])) != loopback
