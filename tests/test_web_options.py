"""`web:` in failover.yaml: what it gives, and that every mistake is one problem that names it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from circus_failover import settings
from circus_failover.problems import SettingsError
from circus_failover.web import options
from circus_failover.web.options import Endpoint, Options


def load(tmp_path: Path, web: object) -> Options:
    path = tmp_path / "failover.yaml"
    path.write_text(json.dumps({"state_dir": "state", "web": web}))  # JSON is YAML
    return settings.load(path).web


def mistakes(tmp_path: Path, web: object) -> list[tuple[str, str]]:
    """Return the key and the text of each problem."""
    with pytest.raises(SettingsError) as error:
        load(tmp_path, web)
    return [(problem.key, str(problem)) for problem in error.value.problems]


@pytest.mark.parametrize("web", [None, {}])
def test_without_a_section_only_this_machine_reaches_it(tmp_path: Path, web: object) -> None:
    found = load(tmp_path, web)
    assert found == Options()
    assert (found.host, found.port, found.allow_remote, found.proxy, found.tls) == (
        "127.0.0.1",
        8787,
        False,
        False,
        False,
    )


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        {
            "host": "0.0.0.0",
            "port": 443,
            "allow_remote": True,
            "tls_cert": "web.crt",
            "tls_key": "/etc/web.key",
            "hosts": ["Fleet.example.org.", "fleet.example.org", "192.0.2.7"],
            "proxy": True,
            "sign_in_days": 7,
            "endpoints": [
                {"name": "build", "endpoint": "ipc:///home/ops/fleet/circus.sock", "ssh": "ops@build"},
                {"name": "b2", "endpoint": "tcp://10.0.0.2:5555", "ssh": None},
            ],
        },
    )
    assert found == Options(
        host="0.0.0.0",
        port=443,
        allow_remote=True,
        tls_cert=tmp_path / "web.crt",
        tls_key=Path("/etc/web.key"),
        hosts=("fleet.example.org", "192.0.2.7"),
        proxy=True,
        sign_in_days=7.0,
        endpoints=(
            Endpoint("build", "ipc:///home/ops/fleet/circus.sock", "ops@build"),
            Endpoint("b2", "tcp://10.0.0.2:5555"),
        ),
    )
    assert found.tls


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("host", "a b", "the address or the name of an interface"),
        ("host", "", "the address or the name of an interface"),
        ("host", 5, "text"),
        ("port", 65536, "a port, 1 to 65535"),
        ("port", -1, "a port, 1 to 65535"),
        ("port", "80", "a whole number"),
        ("port", True, "a whole number"),
        ("allow_remote", "yes", "true or false"),
        ("proxy", 1, "true or false"),
        ("sign_in_days", 0, "more than 0 and at most 365"),
        ("sign_in_days", 366, "more than 0 and at most 365"),
        ("sign_in_days", "7", "a number"),
        ("sign_in_days", [], "a number"),
        ("hosts", "fleet.example.org", "a list"),
        ("hosts", ["https://fleet.example.org"], "without scheme, port or path"),
        ("hosts", ["fleet.example.org:443"], "without scheme, port or path"),
        ("hosts", ["*.example.org"], "without scheme, port or path"),
        ("hosts", [None], "without scheme, port or path"),
        ("endpoints", {}, "a list"),
        ("tls_kye", "x", "tls_key"),
        ("tls_cert", "web.crt", "the certificate and its key go together"),
        ("tls_key", "web.key", "the certificate and its key go together"),
        ("tls_cert", 5, "text"),
    ],
)
def test_a_mistake_is_one_problem_that_names_what_was_expected(
    tmp_path: Path, key: str, value: Any, expected: str
) -> None:
    ((named, text),) = mistakes(tmp_path, {key: value})
    assert named.startswith("web.") and expected in text
    if "go together" not in expected:
        assert named.startswith(f"web.{key}")


@pytest.mark.parametrize(
    ("entry", "key", "expected"),
    [
        ({"endpoint": "tcp://a:1"}, "name", "a value"),
        ({"name": "build"}, "endpoint", "a value"),
        ({"name": "Build", "endpoint": "tcp://a:1"}, "name", "lower-case letters"),
        ({"name": "a/b", "endpoint": "tcp://a:1"}, "name", "lower-case letters"),
        ({"name": "local", "endpoint": "tcp://a:1"}, "name", "the console's own circusd"),
        ({"name": "build", "endpoint": "http://a:1"}, "endpoint", "tcp://HOST:PORT or ipc://PATH"),
        ({"name": "build", "endpoint": "tcp://a:1\n"}, "endpoint", "tcp://HOST:PORT or ipc://PATH"),
        ({"name": "build", "endpoint": "tcp://a:1", "ssh": "-oProxyCommand=sh"}, "ssh", "[USER@]HOST"),
        ({"name": "build", "endpoint": "tcp://a:1", "ssh": "a b"}, "ssh", "[USER@]HOST"),
        ({"name": "build", "endpoint": "tcp://a:1", "port": 1}, "port", "a known key"),
        (3, "", "a mapping"),
    ],
)
def test_a_mistake_in_an_endpoint_is_one_problem_too(
    tmp_path: Path, entry: object, key: str, expected: str
) -> None:
    ((named, text),) = mistakes(tmp_path, {"endpoints": [{"name": "one", "endpoint": "tcp://a:1"}, entry]})
    assert named.startswith("web.endpoints[1]") and named.endswith(key) and expected in text


def test_two_endpoints_have_two_names(tmp_path: Path) -> None:
    entry = {"name": "build", "endpoint": "tcp://a:1"}
    ((named, text),) = mistakes(tmp_path, {"endpoints": [entry, entry]})
    assert named == "web.endpoints[1].name" and "web.endpoints[0] has this one" in text


def test_there_is_a_limit_to_what_one_console_shows(tmp_path: Path) -> None:
    entries = [
        {"name": f"h{number}", "endpoint": "tcp://a:1"} for number in range(options.MOST_ENDPOINTS + 1)
    ]
    ((named, text),) = mistakes(tmp_path, {"endpoints": entries})
    assert named == "web.endpoints" and f"at most {options.MOST_ENDPOINTS}" in text
    assert len(load(tmp_path, {"endpoints": entries[1:]}).endpoints) == options.MOST_ENDPOINTS


@pytest.mark.parametrize("web", [[], "127.0.0.1", 5, True])
def test_the_section_is_a_mapping(tmp_path: Path, web: object) -> None:
    ((named, text),) = mistakes(tmp_path, web)
    assert named == "web" and "a mapping" in text


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    wrong = {"port": 99999, "hosts": [3], "sign_in_days": 0, "endpoints": [{"name": "B", "endpoint": "x"}]}
    assert len(mistakes(tmp_path, wrong)) == 5


def test_the_example_shows_every_key_as_it_is_read(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "failover.yaml.example").read_text(encoding="utf-8")
    section = text[text.index("\nweb:\n") :]
    path = tmp_path / "failover.yaml"
    path.write_text("state_dir: state\n" + re.sub(r"(?m)^  #(?! )|^  #(?=  )", "  ", section))
    given = yaml.safe_load(path.read_text())["web"]
    assert set(given) == set(settings._Web.model_fields)
    assert set(given["endpoints"][0]) == set(settings._WebEndpoint.model_fields)
    found = settings.load(path).web
    assert (found.host, found.port) == (Options().host, Options().port) and found.tls and found.proxy


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "fe80::1%eth0", "localhost", "build-1.example.org"])
def test_what_can_be_listened_on(text: str) -> None:
    assert options.is_host(text)
