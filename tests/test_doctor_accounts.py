"""`doctor` on accounts: what it finds in homes, what a client's answer means, what is never shown."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circus_failover import (
    asked_client,
    doctor,
    doctor_accounts,
    fleet_file,
    process_table,
    settings,
    shared_state,
)
from circus_failover.agents import RUNTIMES
from circus_failover.agents.runtime import HomeReport
from circus_failover.doctor_checks import Check
from circus_failover.fleet_file import ENROL
from circus_failover.policy.accounts import Known
from circus_failover.words import AccountState, Credentials
from tests.picky_runtime import PickyRuntime

LOGGED_IN = """echo '{"loggedIn": true, "authMethod": "api_key", "apiKey": "Marker", "email": "Marker"}'"""
NOBODY = """echo '{"loggedIn": false, "authMethod": "none"}'; exit 1"""


class Place:
    """A fleet of one or more accounts on disk, with a client that is a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.agents: dict[str, str] = {}
        self.accounts = [self.account("main")]
        self.shared: dict[str, object] = {"root": "shared"}
        self.client("claude", LOGGED_IN)

    def account(self, name: str, runtime: str = "claude") -> dict[str, str]:
        """Return an account with a home that is in order."""
        home = self.home(name)
        home.mkdir(parents=True, mode=0o700)
        (home / "login").touch()
        (home / "trusted").write_text(f"{self.folder}\n")
        return {"name": name, "runtime": runtime, "home": f"homes/{name}"}

    def home(self, name: str = "main") -> Path:
        return self.folder / "homes" / name

    def client(self, name: str, answer: str) -> None:
        """Install a client that answers so when it is asked for its login."""
        path = self.bin / name
        path.write_text(
            f"#!/bin/sh\nenv >{self.folder}/environment\n"
            f'case "$1" in --version) echo "2.1.329 (Marker)" ;; *) {answer} ;; esac\n'
        )
        path.chmod(0o755)

    def agent(self, name: str, account: str = "main", runtime: str = "claude", *lines: str) -> None:
        options = [f"failover.runtime = {runtime}", f"failover.account = {account}", *lines]
        self.agents[name] = "\n".join([*options, f"working_dir = {self.folder}"])

    def write(self) -> tuple[fleet_file.FleetFile, dict[Path, settings.Settings]]:
        """Write the files, make what is missing of shared state, and read them as doctor does."""
        described = {"state_dir": "state", "accounts": self.accounts, "shared": self.shared}
        (self.folder / "failover.yaml").write_text(json.dumps(described))
        text = f"[env]\nFAILOVER_CONFIG = failover.yaml\nPATH = {self.bin}:/usr/bin:/bin\n"
        for name, lines in self.agents.items():
            text += f"[watcher:{name}]\ncmd = failover-session\nhooks.before_start = {ENROL}\n{lines}\n"
        ini = self.folder / "circus.ini"
        ini.write_text(text)
        file = fleet_file.read(ini)
        loaded = settings.load(self.folder / "failover.yaml")
        shared_state.create(loaded)
        return file, {loaded.path: loaded}

    def closely(self, *names: str) -> list[Check]:
        return doctor_accounts.examine(names or ("main",), *self.write(), os.geteuid())

    def shortly(self) -> list[Check]:
        return doctor_accounts.shortly(*self.write(), os.geteuid())


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> PickyRuntime:
    made = PickyRuntime()
    monkeypatch.setitem(RUNTIMES, "claude", made)
    return made


@pytest.fixture
def place(tmp_path: Path, runtime: PickyRuntime) -> Place:
    return Place(tmp_path)


def lines(checks: list[Check]) -> list[str]:
    return [f"{check.level} {check.check}: {check.finding}" for check in checks]


def only(checks: list[Check], level: str) -> list[Check]:
    return [check for check in checks if check.level == level]


def test_an_account_in_order_is_one_line_and_closely_everything_that_was_looked_at(place: Place) -> None:
    place.agent("bob")
    place.agent("eve")
    assert lines(place.shortly()) == [f"ok account main: {place.home()}: logged in by login"]
    assert lines(place.closely()) == [
        f"ok account main: {place.home()}: logged in by login",
        f"ok account main: links to {place.folder}/shared: projects, file-history, session-env",
        f"ok account main: transcripts are kept for 30 days (cleanupPeriodDays of {place.home()})",
        "ok account main: used by bob, eve",
        f"ok account main: {place.bin}/claude, version 2.1.329",
        "ok account main: claude auth status: logged in with a key",
    ]


def test_problems_of_a_home_fail_and_those_of_some_agents_name_them(place: Place) -> None:
    place.agent("bob")
    place.agent("eve")
    (place.home() / "trusted").unlink()
    (place.home() / "login").rename(place.home() / "no-login")
    (place.home() / "warn").touch()
    checks = place.shortly()
    assert [line.split(", expected")[0] for line in lines(checks)] == [
        "fail account main: login: found no login file",
        f"fail account main: trust: found {place.folder} not trusted",
        "warn account main: habit: found a bad one",
    ]
    assert not any("(of " in check.finding for check in checks)
    assert checks[1].remedy == "trust it"
    assert not [line for line in lines(place.closely()) if "logged in by" in line]
    other = place.folder / "other"
    other.mkdir()
    place.agents["eve"] = place.agents["eve"].replace(f"= {place.folder}", f"= {other}")
    named = [check.finding.rpartition(" ")[2] for check in place.shortly() if "trust:" in check.finding]
    assert named == ["bob)", "eve)"]


def test_a_login_that_only_the_sections_of_its_agents_give_is_enough(
    place: Place, runtime: PickyRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.home() / "login").rename(place.home() / "no-login")
    look = runtime.check_home

    def keyed(*arguments: Any) -> HomeReport:
        found = look(*arguments)
        return HomeReport(Credentials.PRESENT, "key", ()) if "KEY" in arguments[2] else found

    monkeypatch.setattr(runtime, "check_home", keyed)
    place.agent("bob")
    place.agents["bob"] += "\n[env:bob]\nKEY = k"
    assert lines(place.shortly()) == [f"ok account main: {place.home()}: logged in by key"]


def test_an_env_file_is_told_by_number_and_mode_or_by_what_is_wrong_and_never_by_a_value(
    place: Place,
) -> None:
    place.agent("bob")
    place.accounts[0]["env_file"] = "main.env"
    path = place.folder / "main.env"
    path.write_text("A=Marker\nB=Marker\n")
    path.chmod(0o600)
    found = place.closely()
    assert f"ok account main: env_file {path}: 2 variables, mode 0600" in lines(found)
    assert "Marker" not in str(found)
    path.chmod(0o644)
    for checks in (place.shortly(), place.closely()):
        (wrong,) = only(checks, "fail")
        assert (wrong.check, wrong.remedy) == ("account main", f"chmod 600 {path}")
        assert "Marker" not in str(checks)


def test_links_that_lead_elsewhere_fail_closely(place: Place) -> None:
    place.agent("bob")
    place.write()
    (place.home() / "projects").unlink()
    (place.home() / "projects").symlink_to("/tmp")
    (wrong,) = only(place.closely(), "fail")
    assert "/tmp" in wrong.finding and wrong.remedy


def test_a_daemon_that_outlives_agents_is_a_warning(place: Place) -> None:
    (place.home() / "daemon").write_text("4711")
    for checks in (place.shortly(), place.closely()):
        (warning,) = only(checks, "warn")
        assert "pid 4711" in warning.finding and warning.remedy


def test_an_account_on_which_nothing_can_be_done_is_told_while_that_lasts(place: Place) -> None:
    place.accounts.append(place.account("spare"))
    _, loaded = place.write()
    known = [
        Known("main", "claude", AccountState.LIMITED, "weekly", 1_800_000_000.0, seen_at=5.0, seen_by="bob"),
        Known("spare", "claude", AccountState.CREDENTIALS, seen_at=5.0),
        Known("gone", "claude", AccountState.CREDENTIALS, seen_at=5.0),
    ]
    checks = doctor_accounts.known(known, loaded, 1_799_999_999.0)
    assert lines(checks) == [
        "warn account main: limited (weekly), until 2027-01-15T08:00:00.000Z (seen at bob)",
        "warn account spare: its login has failed",
    ]
    assert "failoverctl accounts check spare" in checks[1].remedy
    assert [check.check for check in doctor_accounts.known(known, loaded, 1_800_000_000.0)] == [
        "account spare"
    ]


def test_the_home_that_keeps_transcripts_least_counts_for_all_that_share_them(place: Place) -> None:
    place.accounts.append(place.account("spare"))
    (place.home("spare") / "settings.json").write_text('{"cleanupPeriodDays": 7}')
    (place.home("main") / "settings.json").write_text('{"cleanupPeriodDays": 60}')
    (warning,) = only(place.shortly(), "warn")
    assert warning.check == "account main"
    assert f"after 7 days (cleanupPeriodDays of {place.home('spare')})" in warning.finding
    # It also matters to its own account, where an agent may resume for longer.
    place.agent("bob", "spare", "claude", f"failover.resume_max_age_secs = {10 * 86400}")
    assert [check.check for check in only(place.shortly(), "warn")] == ["account main", "account spare"]
    # What is not shared is deleted by its own home alone.
    place.shared["links"] = ["file-history"]
    assert [check.check for check in only(place.shortly(), "warn")] == ["account spare"]


@pytest.mark.parametrize(
    ("content", "days"),
    [
        ('{"cleanupPeriodDays": 3}', 3.0),
        ('{"cleanupPeriodDays": "3"}', 30.0),
        ('{"cleanupPeriodDays": true}', 30.0),
        ('{"cleanupPeriodDays": -1}', 30.0),
        ("[]", 30.0),
        ("{", 30.0),
        ("\xff", 30.0),
        ("[" * 100000, 30.0),
    ],
)
def test_settings_that_cannot_be_read_say_nothing_of_retention(
    tmp_path: Path, content: str, days: float
) -> None:
    (tmp_path / "settings.json").write_bytes(content.encode("latin-1"))
    assert doctor_accounts.kept_days(tmp_path) == days
    (tmp_path / "settings.json").unlink()
    os.mkfifo(tmp_path / "settings.json")
    assert doctor_accounts.kept_days(tmp_path) == 30.0


# -- the client itself ---------------------------------------------------------------------------------


def test_a_client_that_is_not_there_fails(place: Place) -> None:
    place.agent("bob")
    (place.bin / "claude").unlink()
    for checks in (place.shortly(), place.closely()):
        (wrong,) = only(checks, "fail")
        assert wrong.finding == "claude is not on the PATH of its agents"


def test_a_client_is_asked_with_what_its_agents_have_and_nothing_of_ours(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDECODE", "1")
    monkeypatch.setenv("SOME_SECRET", "1")
    place.accounts[0]["env_file"] = "main.env"
    (place.folder / "main.env").write_text("TOKEN='a b'\n")
    (place.folder / "main.env").chmod(0o600)
    assert only(place.closely(), "ok")
    given = (place.folder / "environment").read_text().splitlines()
    assert {"TOKEN=a b", f"PICKY_HOME={place.home()}", f"PATH={place.bin}:/usr/bin:/bin", "TERM=dumb"} <= set(
        given
    )
    assert not [line for line in given if line.startswith(("CLAUDECODE", "SOME_SECRET"))]


@pytest.mark.parametrize(
    ("answer", "level", "says"),
    [
        (LOGGED_IN, "ok", "logged in with a key"),
        ("""echo '{"loggedIn": true, "authMethod": "Marker"}'""", "ok", "logged in with something"),
        ("""echo '{"loggedIn": true}'""", "ok", "logged in with something"),
        (NOBODY, "fail", "not logged in, while the files say: logged in by login"),
        ("echo Marker", "warn", "not understood (exit status 0)"),
        ("echo '[Marker]'; exit 3", "warn", "not understood (exit status 3)"),
        ("""echo '{"Marker": 1}'""", "warn", "not understood"),
        ("yes Marker | head -c 1000000", "warn", "not understood"),
        ("kill -9 $$", "warn", "not understood"),
    ],
)
def test_what_a_client_says_of_its_login_is_weighed_and_not_repeated(
    place: Place, answer: str, level: str, says: str
) -> None:
    place.client("claude", answer)
    found = place.closely()
    (line,) = [check for check in found if check.finding.startswith("claude auth status")]
    assert (line.level, says in line.finding) == (level, True), line
    assert "Marker" not in str(found)


def test_without_a_login_the_command_to_log_in_is_named(place: Place) -> None:
    place.client("claude", NOBODY)
    (place.home() / "login").unlink()
    (wrong,) = only(place.closely(), "fail")
    assert wrong.remedy == f"PICKY_HOME={place.home()} claude, and log it in there"


@pytest.mark.parametrize(
    ("answer", "level"), [("exit 0", "ok"), ("echo Marker >&2; exit 1", "warn"), ("exit 2", "warn")]
)
def test_codex_does_not_count_a_key_in_the_environment(place: Place, answer: str, level: str) -> None:
    place.client("codex", answer)
    path = str(place.bin / "codex")
    said = asked_client.login("codex", path, {"PATH": "/usr/bin:/bin", "HOME": str(place.folder)})
    assert said is not None
    assert said.logged_in is {"exit 0": True, "exit 2": None}.get(answer, False)
    assert said.keys_do_not_count is (said.logged_in is not None)


def test_a_client_that_does_not_answer_is_ended_with_all_it_started(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = place.folder / "pids"
    place.client("claude", f"echo $$ >{pids}; sleep 600 & echo $! >>{pids}; wait")
    for secs in (0.5, 3.0, 15.0):  # the more, the surer it has started something by then
        monkeypatch.setattr(asked_client, "ANSWER_SECS", secs)
        answer = asked_client.login(
            "claude", str(place.bin / "claude"), {"PATH": "/usr/bin:/bin", "HOME": str(place.folder)}
        )
        assert answer is not None and answer.logged_in is None
        assert answer.text == f"no answer within {secs:g} s"
        if pids.exists() and len(pids.read_text().split()) == 2:
            break
    written = pids.read_text().split()
    assert len(written) == 2

    def gone(pid: int) -> bool:
        found = process_table.read(pid)
        return found is None or found.run_state in "ZX"

    await_true(lambda: all(gone(int(pid)) for pid in written))


def await_true(probe: Callable[[], bool], secs: float = 20) -> None:
    until = time.monotonic() + secs
    while not probe():
        assert time.monotonic() < until
        time.sleep(0.02)


# -- the verb ------------------------------------------------------------------------------------------


def test_an_account_that_is_not_there_is_told_with_the_nearest(place: Place) -> None:
    (wrong,) = place.closely("mian")
    assert wrong.level == "fail"
    assert wrong.finding.endswith("(configured: main); did you mean 'main'?")


def test_several_accounts_are_told_one_after_another_and_each_once(place: Place) -> None:
    place.accounts.append(place.account("spare"))
    checks = place.closely("spare", "main", "spare")
    names = list(dict.fromkeys(check.check for check in checks))
    assert names == ["account spare", "account main"]
    assert len([check for check in checks if "logged in by" in check.finding]) == 2


def test_the_homes_of_another_user_are_not_judged(place: Place) -> None:
    file, loaded = place.write()
    for checks in (
        doctor_accounts.shortly(file, loaded, os.geteuid() + 1),
        doctor_accounts.examine(["main"], file, loaded, os.geteuid() + 1),
    ):
        (warning,) = checks
        assert (warning.level, warning.remedy) == ("warn", "run doctor as that user")


def test_doctor_with_an_account_says_nothing_else(place: Place) -> None:
    place.agent("bob")
    place.write()
    checks = doctor.examine(str(place.folder / "circus.ini"), None, ["main"])
    assert {check.check for check in checks} == {"account main"}
    (place.folder / "circus.ini").write_text("[circus]\numask = x\n")
    (wrong,) = doctor.examine(str(place.folder / "circus.ini"), None, ["main"])
    assert (wrong.level, wrong.check) == ("fail", "circus.ini")


def test_a_fleet_without_accounts_has_no_line_of_any(place: Place) -> None:
    place.accounts = []
    assert place.shortly() == []
