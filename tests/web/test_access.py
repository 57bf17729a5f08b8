"""Who gets in, and what is asked of them: over real connections, all that is served, no circusd behind."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from circus_failover.policy import sign_in
from circus_failover.web import access as access_module
from circus_failover.web.access import new_code, sign
from circus_failover.web.audit import MOST_REFUSALS, Audit
from circus_failover.web.handler import MOST_BODY_BYTES
from circus_failover.web.operations import BASE, READS
from circus_failover.words import Role
from tests.live.fleet import parse_logfmt
from tests.web.served import CODE, LIVE, READ, SESSION, UPGRADE, VERB, Served, as_sent, serve

# -- sessions ------------------------------------------------------------------------------------------


def test_without_a_sign_in_nothing_of_a_fleet_is_told(served: Served) -> None:
    for path in (
        READ,
        SESSION,
        "/metrics",
        "/api/v1/openapi.json",
        "/api/v1/live",
        "/api/v1/hosts/local/agents",
    ):
        answer = served.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for path in (VERB, CODE):
        assert served.post(path, {}).status_code == 401
    assert "bob" not in served.get("/").text


def test_the_cookie_of_a_session_is_out_of_reach_of_pages_and_of_other_sites(served: Served) -> None:
    page = served.sign_in()
    cookie = page.answer.headers["Set-Cookie"]
    port = served.netloc.partition(":")[2]
    # Browsers give the cookies of one host to all its ports: consoles must not sign out one another.
    assert cookie.startswith(f"failover_session_{port}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie and "Domain" not in cookie
    assert served.tokens.operator not in cookie and page.csrf not in cookie
    assert re.fullmatch("[0-9a-f]{64}", page.csrf), "pages take nothing else for one (static/csrf.js)"
    answer = page.get(SESSION).json()
    assert (answer["role"], answer["who"]) == ("operator", "web:operator@127.0.0.1")
    assert answer["expires_at"] == pytest.approx(time.time() + 30 * 86400, abs=60)
    assert (answer["hosts"], answer["version"]) == (["local"], "1.2.3")


def test_a_cookie_that_another_server_of_this_machine_was_given_opens_nothing(served: Served) -> None:
    """Browsers give it to every port of the host name; who serves there can send it with any header."""
    page, other = served.sign_in(), served.sign_in()
    reads = [SESSION, READ, "/metrics", "/api/v1/openapi.json"]
    reads += [re.sub(r"{\w+}", "local", BASE + read.path) for read in READS]
    for wrong in ("", "x", other.csrf, page.csrf[:-1], page.csrf.upper(), page.cookie.partition("=")[2]):
        stolen = page.headers(X_CSRF_Token=wrong)
        asked = [served.get(path, **stolen) for path in (reads[:1] if wrong else reads)]
        for protocols in ("", "failover", f"failover, csrf.{wrong}", f"csrf., {wrong}"):
            socket = {**UPGRADE, **({"Sec_WebSocket_Protocol": protocols} if protocols else {})}
            asked.append(served.get(LIVE, **stolen, **socket))
        asked += [served.post(path, {}, **stolen) for path in (VERB, CODE)]
        asked.append(served.ask("DELETE", SESSION, headers=as_sent(stolen)))
        for answer in asked:
            assert answer.status_code == 401, (answer.request.method, answer.url, wrong)
            assert "a cookie alone opens nothing" in answer.json()["error"]
            assert page.csrf not in answer.text + str(answer.headers)
    # The page goes on, and nobody is told its token once it is signed in.
    for path in reads:
        answer = page.get(path)
        assert answer.status_code != 401 and page.csrf not in answer.text + str(answer.headers), path
    with_protocol = {**UPGRADE, "Sec_WebSocket_Protocol": f"failover, csrf.{page.csrf}"}
    assert served.get(LIVE, **page.headers(X_CSRF_Token=""), **with_protocol).status_code == 101
    # No circusd is there: 503 says that it went so far.
    assert served.post(VERB, {"name": "bob"}, **page.headers()).status_code == 503
    assert "csrf" in {line["outcome"] for line in served.audited()}


def test_what_a_page_changes_needs_its_origin_too(served: Served) -> None:
    page = served.sign_in()
    for path in (VERB, CODE):
        assert served.post(path, {}, **page.headers(Origin="")).status_code == 403
    assert served.ask("DELETE", SESSION, headers=as_sent(page.headers(Origin=""))).status_code == 403
    assert page.get(SESSION).status_code == 200
    assert "origin" in {line["outcome"] for line in served.audited()}


def test_a_cookie_that_is_not_the_consoles_is_nobodys(served: Served) -> None:
    page = served.sign_in(Role.VIEWER)
    name, _, value = page.cookie.partition("=")
    tokens, until = served.tokens, time.time() + 1000
    forged = (
        value[:-2] + ("00" if value[-2:] != "00" else "11"),
        sign(replace(tokens, secret="another" * 9), "session", "x", Role.OPERATOR, until),
        sign(tokens, "code", "x", Role.OPERATOR, until),
        sign(tokens, "session", "x", Role.OPERATOR, time.time() - 1),
        new_code(tokens, Role.OPERATOR),
        tokens.operator,
        "",
        '"' + value,
    )
    for cookie in forged:
        answer = served.get(SESSION, **page.headers(Cookie=f"{name}={cookie}"))
        assert answer.status_code == 401, cookie
    for cookie in ("", f"failover_session={value}"):
        assert served.get(SESSION, **page.headers(Cookie=cookie)).status_code == 401


def test_signing_out_ends_the_session_for_every_copy_of_its_cookie_and_for_the_next_console(
    served: Served, tmp_path: Path
) -> None:
    page, other = served.sign_in(), served.sign_in()
    told = threading.Event()
    served.access.subscribe(told.set)
    answer = served.ask("DELETE", SESSION, headers=as_sent(page.headers()))
    assert answer.status_code == 200 and told.is_set()
    assert re.search(r'failover_session_\d+=("")?;', answer.headers["Set-Cookie"])
    assert page.get(SESSION).status_code == 401
    assert other.get(SESSION).status_code == 200
    with serve(tmp_path) as again:
        port, wanted = again.netloc.partition(":")[2], served.netloc.partition(":")[2]
        for one, status in ((page, 401), (other, 200)):
            cookie = one.cookie.replace(wanted, port, 1)
            assert again.get(SESSION, **one.headers(Cookie=cookie, Origin="")).status_code == status


def test_new_tokens_end_every_session_every_code_and_every_script(served: Served) -> None:
    page, code = served.sign_in(), new_code(served.tokens, Role.OPERATOR)
    told = threading.Event()
    served.access.subscribe(told.set)
    served.folder.renew()
    assert page.get(SESSION).status_code == 401
    assert served.post(SESSION, {"code": code}).status_code == 401
    assert served.get(READ, Authorization=served.bearer()).status_code == 401
    served.folder.renew()
    served.access.look()
    assert told.is_set()
    new = served.folder.read()
    assert served.get(READ, Authorization=f"Bearer {new.viewer}").status_code == 200


def test_secrets_that_others_could_read_sign_in_nobody_and_strangers_learn_no_path(served: Served) -> None:
    page = served.sign_in()
    (served.folder.path / "cookie-secret").chmod(0o644)
    for answer in (
        page.get(SESSION),
        served.get(READ, Authorization=served.bearer()),
        served.post(SESSION, {"token": served.tokens.operator}),
    ):
        assert answer.status_code == 503
        assert str(served.folder.path) not in answer.text
    assert not served.access.usable
    (served.folder.path / "cookie-secret").chmod(0o600)
    assert page.get(SESSION).status_code == 200


# -- tokens and codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
def test_a_script_signs_in_with_each_request_and_needs_no_csrf_token(served: Served, role: Role) -> None:
    answer = served.get(SESSION, Authorization=served.bearer(role))
    assert answer.status_code == 200 and "Set-Cookie" not in answer.headers
    assert answer.json()["role"] == role
    for wrong in ("Bearer", "Bearer  ", "Bearer x", "Bearer \xff\xfe", f"Bearer {served.tokens.secret}"):
        assert served.get(SESSION, Authorization=wrong).status_code in (401, 429), wrong
    assert served.get(SESSION, Authorization=f"Basic {served.tokens.operator}").status_code == 401


def test_viewers_change_nothing(served: Served) -> None:
    from circus_failover.web.operations import BY_NAME

    page = served.sign_in(Role.VIEWER)
    for verb in BY_NAME.values():
        body = {"name": "bob"}
        path = f"/api/v1/hosts/local/verbs/{verb.name}"
        by_page = served.post(path, body, **page.headers())
        by_script = served.post(path, body, Authorization=served.bearer(Role.VIEWER))
        allowed = verb.role is Role.VIEWER
        for answer in (by_page, by_script):
            assert (answer.status_code != 403) == allowed, (verb.name, answer.text)
    assert {verb.name for verb in BY_NAME.values() if verb.role is Role.VIEWER} <= {
        "tasks",
        "accounts",
        "numprocesses",
    }
    assert served.audited()[-1]["who"] == "web:viewer@127.0.0.1"


def test_a_code_signs_in_once_and_not_after_its_time(served: Served) -> None:
    code = served.post(CODE, Authorization=served.bearer()).json()
    assert code["url"] == f"{served.url}/sign-in#code=" + requests.utils.quote(code["code"])
    assert code["expires_in"] == access_module.CODE_SECS == 60
    answer = served.post(SESSION, {"code": code["code"]})
    assert answer.status_code == 200 and answer.json()["role"] == "operator"
    assert served.post(SESSION, {"code": code["code"]}).status_code == 401
    late = sign(served.tokens, "code", "y", Role.OPERATOR, time.time() - 1)
    assert served.post(SESSION, {"code": late}).status_code == 401
    # A cookie is no code, and a token neither.
    value = served.sign_in().cookie.partition("=")[2]
    assert served.post(SESSION, {"code": value}).status_code == 401


def test_nobody_makes_a_code_for_more_than_they_may(served: Served) -> None:
    as_viewer, as_operator = ({"Authorization": served.bearer(role)} for role in (Role.VIEWER, Role.OPERATOR))
    assert served.post(CODE, {"role": "operator"}, **as_viewer).status_code == 403
    for body, headers in ((None, as_viewer), ({"role": "viewer"}, as_operator)):
        code = served.post(CODE, body, **headers).json()["code"]
        assert served.post(SESSION, {"code": code}).json()["role"] == "viewer"
    for wrong in ({"role": "root"}, {"rôle": "viewer"}, ["viewer"], {"role": ["viewer"]}):
        assert served.post(CODE, wrong, **as_operator).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"x",
        b'{"token": 5}',
        b'{"token": ""}',
        b'{"token": "a", "code": "b"}',
        b"[" * 5000,
        b"\xff",
    ],
)
def test_a_sign_in_that_makes_no_sense_is_a_mistake_and_no_guess(served: Served, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for _ in range(8):
        assert served.ask("POST", SESSION, data=body, headers=headers).status_code == 400
    served.sign_in()


def test_a_form_of_another_page_cannot_sign_anybody_in(served: Served) -> None:
    data = json.dumps({"token": served.tokens.operator})
    answer = served.ask("POST", SESSION, data=data, headers={"Content-Type": "text/plain"})
    assert answer.status_code == 400 and "Set-Cookie" not in answer.headers


def test_a_body_that_is_too_large_is_refused_with_a_sentence(served: Served) -> None:
    answer = served.ask("POST", VERB, data=b"x" * (MOST_BODY_BYTES + 1))
    assert answer.status_code == 413 and "at most" in answer.json()["error"]


# -- guessing ------------------------------------------------------------------------------------------


def test_after_five_wrong_ones_nobody_at_that_address_can_sign_in_for_a_minute(served: Served) -> None:
    page = served.sign_in()
    for number in range(5):
        wrong = {"token": f"{number}"} if number % 2 else {"code": f"{number}"}
        assert served.post(SESSION, wrong).status_code == 401
    answer = served.post(SESSION, {"token": served.tokens.operator})
    assert answer.status_code == 429
    assert 50 <= int(answer.headers["Retry-After"]) <= 60
    assert "try again in" in answer.json()["error"]
    # Who is signed in goes on working, and so do scripts.
    assert page.get(SESSION).status_code == 200
    assert served.get(SESSION, Authorization=served.bearer()).status_code == 200
    outcomes = [line["outcome"] for line in served.audited()]
    assert outcomes.count("token") + outcomes.count("code") == 5 and outcomes[-1] == "rate"


def test_a_script_with_an_old_token_locks_nobody_out(served: Served) -> None:
    answers = [served.get(READ, Authorization="Bearer old").status_code for _ in range(8)]
    assert answers == [401] * 5 + [429] * 3
    assert served.get(READ, Authorization=served.bearer()).status_code == 200
    served.sign_in()


def test_a_minute_later_it_can_be_tried_again(tmp_path: Path) -> None:
    with serve(tmp_path, sign_in.Limits(of_one=1, window_secs=0.3)) as served:
        assert served.post(SESSION, {"token": "x"}).status_code == 401
        until = time.monotonic() + 20
        while (answer := served.post(SESSION, {"token": served.tokens.viewer})).status_code == 429:
            assert time.monotonic() < until
        assert answer.status_code == 200


# -- the audit log -------------------------------------------------------------------------------------


def test_who_signed_in_and_out_and_who_asked_for_what_is_written_down_without_a_secret(
    served: Served,
) -> None:
    page = served.sign_in()
    code = served.post(CODE, **page.headers()).json()["code"]
    served.post(SESSION, {"code": code})
    served.post(VERB, {"name": "bob"}, **page.headers())
    served.post("/api/v1/hosts/local/verbs/tell", {"name": "bob", "text": "the word"}, **page.headers())
    served.ask("DELETE", SESSION, headers=as_sent(page.headers()))
    lines = served.audited()
    assert [(line["ev"], line.get("verb") or line.get("by"), line["outcome"]) for line in lines] == [
        ("web-sign-in", "token", "in"),
        ("web-sign-in", "code", "made"),
        ("web-sign-in", "code", "in"),
        ("web-action", "reset", "unreachable"),
        ("web-action", "tell", "unreachable"),
        ("web-sign-in", "session", "out"),
    ]
    assert {(line["who"], line["address"]) for line in lines} == {("web:operator@127.0.0.1", "127.0.0.1")}
    assert served.state.audit_log.stat().st_mode & 0o777 == 0o600
    text = served.state.audit_log.read_text()
    value = page.cookie.partition("=")[2]
    for secret in (*vars(served.tokens).values(), code, value, page.csrf, "the word"):
        assert secret not in text


def test_strangers_cannot_fill_the_audit_log_nor_write_lines_of_their_own(served: Served) -> None:
    for number in range(MOST_REFUSALS + 20):
        served.get(f"/x%0aev=web-action%20who=me{number}", Host="evil.example")
    lines = served.audited()
    assert len(lines) == MOST_REFUSALS and {line["ev"] for line in lines} == {"web-refused"}
    page = served.sign_in()
    served.post(VERB, {"name": "bob"}, **page.headers())
    assert served.audited()[-1]["verb"] == "reset"


def test_no_field_of_a_request_takes_the_place_of_the_logs_own(tmp_path: Path) -> None:
    audit = Audit()
    audit.use(tmp_path / "audit.log")
    audit.action(
        "web:operator@::1", "::1", "set", "ok", ts="x", ev="x", now="x", key="a\nb", names=["a", "b"]
    )
    (line,) = (tmp_path / "audit.log").read_text().splitlines()
    found = parse_logfmt(line)
    assert (found["ev"], found["key"], found["names"]) == ("web-action", "a\nb", "a,b")
    assert found["ts"].endswith("Z") and "now" not in found
