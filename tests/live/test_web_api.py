"""The API against a real circusd: what it answers is true, and nothing that is sent makes it fail."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import hypothesis
import requests
import schemathesis
from schemathesis import GenerationMode, checks
from tornado.netutil import bind_sockets

from circus_failover.state_dir import StateDir
from circus_failover.web.access import Access
from circus_failover.web.audit import Audit
from circus_failover.web.options import Endpoint, Options
from circus_failover.web.tokens import TokenFolder
from tests.live.fleet import Fleet, parse_logfmt, wait_for
from tests.web.served import in_a_thread

SNAPSHOT = "20261122T040000.123Z-1.json"
HOSTILE = (
    "nobody",
    "%2e%2e",
    "a%2Fb",
    "%00",
    "%ff",
    "%1b%5B31m",
    "%3Cb%3E",
    "..%2f..%2fweb%2ftoken",
    "x" * 4000,
)


@contextlib.contextmanager
def console(fleet: Fleet) -> Iterator[tuple[str, str, str]]:
    """Serve the API for a fleet, in a thread; gives its address, and the tokens of operators and viewers."""
    state = StateDir(fleet.state)
    folder = TokenFolder(state)
    folder.prepare()
    access, audit = Access(Options(endpoints=(Endpoint("local", fleet.endpoint),))), Audit()
    access.use(folder)
    audit.use(state.audit_log)
    sockets, tokens = bind_sockets(0, "127.0.0.1"), folder.read()
    with in_a_thread(access, audit, sockets):
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}", tokens.operator, tokens.viewer


class Client:
    """A script that uses the API."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {token}"

    def await_fleet(self) -> None:
        """Wait until the console has read the fleet, and circusd answers."""

        def look() -> bool:
            found = self.session.get(f"{self.url}/api/v1/hosts/local/watchers", timeout=60)
            return found.ok and all(one["pids"] for one in found.json()["watchers"])

        wait_for("the console sees the fleet", look)

    def get(self, path: str, status: int = 200) -> Any:
        """Read something below the host, and return the JSON of an answer of this status."""
        return self.answered(self.session.get(f"{self.url}/api/v1/hosts/local{path}", timeout=60), status)

    def post(self, verb: str, status: int = 200, **body: Any) -> Any:
        """Send a verb, and return the JSON of an answer of this status."""
        to = f"{self.url}/api/v1/hosts/local/verbs/{verb}"
        return self.answered(self.session.post(to, json=body, timeout=60), status)

    def answered(self, answer: requests.Response, status: int) -> Any:
        """Return the JSON of an answer; one that is a no is a sentence."""
        assert answer.status_code == status, (answer.url, answer.status_code, answer.text)
        assert answer.headers["Content-Type"].startswith("application/json"), answer.headers
        assert answer.headers["Cache-Control"] == "no-store"
        found = answer.json()
        if status != 200:
            assert found["error"].isprintable()
            assert found["error"]
        return found


def _fleet(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.agent("beta", failover__pool="p")
    fleet.watcher("plain", "sleep 1000", numprocesses="1", copy_env="True")
    fleet.start()
    fleet.await_up("alpha", "beta")


def test_what_is_read_is_true_and_what_is_sent_is_done_by_circusd_for_whoever_sent_it(fleet: Fleet) -> None:
    _fleet(fleet)
    with console(fleet) as (url, operator_token, viewer_token):
        us, viewer = Client(url, operator_token), Client(url, viewer_token)
        us.await_fleet()

        # What is read is what circusd and failoverctl say.
        assert [one["identity"] for one in us.get("/agents")["agents"]] == ["alpha", "beta"]
        assert us.get("/agents/alpha")["lines"][0] == fleet.ctl("explain", "alpha").out.splitlines()[0]
        assert (
            us.get("/agents/alpha/history?limit=1")["history"]
            == fleet.call("history", name="alpha", limit=1)["history"]
        )
        assert us.get("/agents/alpha/terminal")["frame"]["cols"] > 0
        plain = us.get("/watchers/plain")
        assert (plain["status"], plain["agent"]) == ("active", False)
        assert [int(pid) for pid in plain["processes"]] == fleet.call("list", name="plain")["pids"]

        # A verb is circusd's, and circusd is told who sent it.
        assert us.post("stop", name="alpha", waiting=True)["agents"][0]["phase"] == "stopped"
        refused = us.post("wake", 409, name="alpha")
        assert refused["error"] == refused["answer"]["reason"]
        assert "it was stopped: stop (web:operator@127.0.0.1)" in refused["error"]
        assert us.post("start", name="alpha", waiting=True)["agents"][0]["phase"] == "up"
        assert us.post("tell", name="alpha", text="hello")["agents"][0]["tasks_note"] == "told"
        fleet.await_screen("alpha", "done: hello")
        assert us.post("set", name="plain", options={"numprocesses": "2"}, waiting=True)["status"] == "ok"
        assert us.post("incr", name="plain", waiting=True)["numprocesses"] == 3
        assert (
            us.post("assign", pool="p", task="secret words", id="w1")["assignment"]["who"]
            == "web:operator@127.0.0.1"
        )
        assert us.get("/work?id=w1")["assignments"][0]["id"] == "w1"
        assert "KeyError" in us.post("signal", 409, name="plain", signum="HUP", pid=1, childpid=1)["error"]

        # Who may only look cannot do anything, and sees no values that may be secret.
        viewer.post("stop", 403, name="alpha")
        assert viewer.post("numprocesses")["numprocesses"] == 5
        assert viewer.get("/agents")["agents"][0]["phase"] == "up"
        assert us.get("/watchers/plain")["options"]["env"]["FAILOVER_CONFIG"] == "failover.yaml"
        assert "failover.yaml" not in str(viewer.get("/watchers/plain"))

        # Nothing that makes no sense is more than a sentence.
        for name in HOSTILE:
            for path in (
                "/agents/{}",
                "/agents/{}/history",
                "/agents/{}/terminal",
                "/agents/{}/usage",
                "/watchers/{}",
                "/deaths/forensics/{}",
            ):
                us.get(path.format(name), 400 if name == "%ff" else 404)
        us.get("/nothing", 404)
        us.get("/work?limit=many", 400)
        us.post("stop", 400)
        us.post("stop", 400, name="alpha", by="root")
        us.post("quit", 404)
        us.answered(us.session.post(f"{url}/api/v1/hosts/local/verbs/stop", data=b"\xff", timeout=60), 400)
        us.answered(
            us.session.post(f"{url}/api/v1/hosts/nowhere/verbs/stop", json={"name": "alpha"}, timeout=60), 404
        )
        for method, path, allowed in (
            ("POST", "/api/v1/hosts", "GET"),
            ("PUT", "/api/v1/hosts/local/verbs/stop", "POST"),
        ):
            answer = us.session.request(method, url + path, json={}, timeout=60)
            us.answered(answer, 405)
            assert answer.headers["Allow"] == allowed
        assert fleet.view("alpha")["phase"] == "up"

        scraped = us.session.get(f"{url}/metrics", timeout=60).text
        assert 'failover_circusd_up{host="local"} 1.0' in scraped
        assert 'failover_ends_total{host="local",intent="stop",outcome="ended"} 1.0' in scraped
        assert "process_resident_memory_bytes" in scraped

        # What is in files is there without circusd; everything else says that it is gone, and comes back.
        (fleet.state / "forensics" / SNAPSHOT).write_text('{"what": "<script>"}')
        pid = fleet.view("beta")["pid"]
        fleet.end(signal.SIGKILL)
        wait_for(
            "the console knows",
            lambda: us.session.get(f"{url}/api/v1/hosts/local/agents", timeout=60).status_code == 503,
        )
        assert "circusd" in us.post("stop", 503, name="alpha")["error"]
        us.get("/watchers", 503)
        assert us.get(f"/deaths/forensics/{SNAPSHOT}") == {"what": "<script>"}
        assert us.get("/deaths")["deaths"] == []
        fleet.start()
        fleet.await_up("beta")
        us.await_fleet()
        assert fleet.view("beta")["pid"] == pid

    lines = [parse_logfmt(line) for line in (fleet.state / "audit.log").read_text().splitlines()]
    done = [(line["who"], line["verb"], line["outcome"]) for line in lines if line["ev"] == "web-action"]
    for line in (
        ("web:operator@127.0.0.1", "stop", "ok"),
        ("web:operator@127.0.0.1", "wake", "refused"),
        ("web:viewer@127.0.0.1", "stop", "forbidden"),
        ("web:operator@127.0.0.1", "quit", "unknown"),
        ("web:operator@127.0.0.1", "stop", "invalid"),
        ("web:operator@127.0.0.1", "stop", "unreachable"),
    ):
        assert line in done, line
    assert "secret words" not in (fleet.state / "audit.log").read_text()


# -- generated requests --------------------------------------------------------------------------------

PATHS = {"host": ["local"], "file": [SNAPSHOT], "agents": ["alpha"], "watchers": ["plain"]}
"""What generated paths name; what names nothing is tested above."""
OF_WATCHERS = frozenset(("Reload", "Count", "Set", "Signal", "Kill", "Processes"))
"""Bodies that are about watchers that are no agents."""
BODIES: dict[str, dict[str, Any]] = {
    "pool": {"enum": ["p", "q"]},
    "ids": {"type": "array", "items": {"enum": ["w1", "w2"]}, "minItems": 1},
    # Other waits may take minutes, as they are to.
    "secs": {"enum": [4.5]},
    "delivered": {"enum": [False]},
}
LEFT_OUT = {
    "send_rm": "nothing would be left to ask about",
    "send_purge": "nothing would be left to ask about",
    "send_reloadconfig": "it undoes and restarts what the others did, and takes its time",
    "session": "tested with the sign-in",
}
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


def _narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document for requests about things that are there."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for one in operation.get("parameters", ()):
                about = "agents" if "/agents/" in path else "watchers"
                if one["in"] == "path":
                    one["schema"] = {"enum": PATHS[about if one["name"] == "name" else one["name"]]}
    for model, schema in document["components"]["schemas"].items():
        if model.endswith("Body"):
            # Generated names are nobody's, and would only be refused.
            name = {"enum": ["plain" if model.removesuffix("Body") in OF_WATCHERS else "alpha"]}
            names = {"type": "array", "items": name, "minItems": 1}
            known = {**BODIES, "name": name, "names": names}
            schema["properties"].update({key: known[key] for key in known if key in schema["properties"]})
    return document


def test_generated_requests_are_answered_as_the_document_says(fleet: Fleet) -> None:
    _fleet(fleet)
    (fleet.state / "forensics" / SNAPSHOT).write_text("{}")
    with console(fleet) as (url, token, _):
        us = Client(url, token)
        document = us.answered(us.session.get(f"{url}/api/v1/openapi.json", timeout=60), 200)
        us.await_fleet()
        seen: dict[str, set[int]] = {}
        for found in schemathesis.openapi.from_dict(_narrowed(document)).get_all_operations():
            operation = found.ok()
            name = operation.definition.raw["operationId"]
            if name in LEFT_OUT:
                continue
            seen[name] = _send(us, operation, GenerationMode.POSITIVE)
            if operation.query or operation.body:
                seen[name] |= _send(us, operation, GenerationMode.NEGATIVE)
        # They came as far as to circusd: it did what it was asked, or said why not.
        assert [name for name, statuses in seen.items() if not statuses & {200, 409}] == []
        assert [name for name, statuses in seen.items() if "send_" not in name and 200 not in statuses] == []


def _send(us: Client, operation: Any, mode: GenerationMode) -> set[int]:
    """Send some generated requests, check what is answered, and return the statuses."""
    seen = set()
    # An agent that is ended and launched takes its time.
    carried_out = operation.method == "post" and mode is GenerationMode.POSITIVE

    @hypothesis.settings(
        max_examples=2 if carried_out else 5,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        answer = case.call(base_url=us.url, session=us.session, timeout=60)
        seen.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    send()
    return seen
