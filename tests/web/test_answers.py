"""What the console answers, whoever asks: its headers, the page, its files, what there is not."""

from __future__ import annotations

import re
from pathlib import Path

from tests.web.served import EVERYWHERE, Served


def test_every_answer_forbids_to_be_framed_guessed_at_and_kept(served: Served) -> None:
    for method in ("GET", "HEAD", "POST", "OPTIONS", "PATCH"):
        for path in (*EVERYWHERE, "/api/nothing", "/static/../server.py", "/static/%2e%2e/server.py", "/%ff"):
            answer = served.ask(method, path)
            assert answer.status_code < 500, (method, path)
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"], (method, path)
            assert "unsafe" not in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert answer.headers["Cache-Control"] in ("no-store", "no-cache")
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Server" not in answer.headers
            assert "def " not in answer.text


def test_the_page_runs_its_own_scripts_alone_and_its_nonce_is_another_one_each_time(served: Served) -> None:
    seen = set()
    for path, status in (("/", 200), ("/agents/local/bob", 200), ("/nowhere", 404)):
        answer = served.get(path, Accept="text/html")
        assert answer.status_code == status
        policy = answer.headers["Content-Security-Policy"]
        (nonce,) = re.findall(r"'nonce-([\w-]{20,})'", policy)
        assert f'content="{nonce}"' in answer.text and "{{" not in answer.text
        assert "script-src 'self';" in policy and "require-trusted-types-for 'script'" in policy
        assert f"connect-src 'self' ws://{served.netloc};" in policy
        # No script in the page itself, and none from elsewhere.
        assert all(re.search(r'src="/static/', tag) for tag in re.findall(r"<script[^>]*>", answer.text))
        assert not re.search(r"https?://|\son\w+=", answer.text)
        seen.add(nonce)
    assert len(seen) == 3


def test_what_there_is_not_is_a_page_for_browsers_and_a_sentence_for_scripts(served: Served) -> None:
    assert served.get("/nowhere", Accept="text/html").headers["Content-Type"].startswith("text/html")
    for path, accept in (("/nowhere", "*/*"), ("/api", "text/html"), ("/api/v2/x", "text/html")):
        answer = served.get(path, Accept=accept)
        assert (answer.status_code, answer.json()) == (404, {"error": "there is nothing at this address"})
    assert served.ask("POST", "/nowhere", headers={"Accept": "text/html"}).status_code == 404


def test_a_module_that_was_replaced_is_loaded_anew(served: Served, tmp_path: Path) -> None:
    answer = served.get("/static/app.js")
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert served.get("/static/app.js", If_None_Match=answer.headers["Etag"]).status_code == 304
    assert served.get("/static/app.js", If_None_Match='"1-1"').status_code == 200
    assert served.get("/static/vendor/preact.mjs").headers["Content-Type"].startswith("text/javascript")


def test_whoever_watches_the_console_needs_no_sign_in(served: Served) -> None:
    assert served.get("/healthz").json() == {"status": "ok"}
    assert served.ask("HEAD", "/healthz").status_code == 200
