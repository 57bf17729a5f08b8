"""The file of a pool, and the verb that writes it while no circusd runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from circus.config import get_config
from circus.exc import ArgumentError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from circus_failover import fleet_file, pool_file
from circus_failover.failure import Failed
from circus_failover.pool_file import Pool, PoolError, make, parse
from circus_failover.validation import validate
from circus_failover.verbs.pool_verb import PoolVerb

TEMPLATE = {"failover.command": "run --as {name}", "working_dir": "/srv/{index}"}


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    """A circus.ini without agents, whose include_dir is empty."""
    (tmp_path / "fleet.d").mkdir()
    (tmp_path / "failover.yaml").write_text("state_dir: state\n")
    path = tmp_path / "circus.ini"
    path.write_text(
        f"[circus]\nendpoint = ipc://{tmp_path}/ctl\ninclude_dir = fleet.d\n"
        "[env]\nFAILOVER_CONFIG = failover.yaml\n"
    )
    return path


def pool(ini: Path, *words: str, as_json: bool = False, **options: Any) -> int:
    """Run the verb on a circus.ini; option names with `_` for a dash."""
    given = {name: default for _, name, default, _ in PoolVerb.options}
    given.update({key.replace("_", "-"): value for key, value in options.items()}, ini=str(ini))
    opts = {"json": as_json, "prettify": False, "endpoint": None}
    return PoolVerb().run(opts, *words, **given)


def create(ini: Path, prefix: str = "ccl-", **options: Any) -> int:
    return pool(ini, "create", prefix, **{"max": "3", "min": "1", "command": "run", **options})


def files(ini: Path) -> list[str]:
    return sorted(os.listdir(ini.parent / "fleet.d"))


# -- the file ----------------------------------------------------------------------------------------


def test_circus_reads_a_watcher_for_each_index_and_nothing_else(ini: Path) -> None:
    (ini.parent / "fleet.d" / "p.ini").write_text(make("ccl-auto-", 11, 10, 20, TEMPLATE).text())
    config = get_config(str(ini))
    watchers = sorted(config["watchers"], key=lambda watcher: int(watcher["name"].rpartition("-")[2]))
    assert [watcher["name"] for watcher in watchers] == [f"ccl-auto-{index}" for index in range(11, 31)]
    assert config["plugins"] == config["sockets"] == []
    for number, watcher in enumerate(watchers):
        least = number < 10
        assert watcher["cmd"] == "failover-session"
        assert watcher["hooks"] == {"before_start": [fleet_file.ENROL, False]}
        assert watcher["autostart"] is least
        assert watcher["failover.restart"] == ("always" if least else "on-work")
        assert watcher.get("failover.idle_secs") == ("0" if least else None)
        assert (watcher["failover.pool"], watcher["failover.pool_min"]) == ("ccl-auto", "10")
        assert watcher["failover.command"] == f"run --as ccl-auto-{11 + number}"
        assert watcher["working_dir"] == f"/srv/{11 + number}"
    report = validate(ini)
    assert {problem.key for problem in report.problems} == {"working_dir"}
    assert not any("section" in note for note in report.notes)


def test_the_idle_time_of_the_template_is_for_those_past_the_minimum_alone() -> None:
    made = make("a-", 0, 1, 2, {"failover.idle_secs": "900"})
    assert [options["failover.idle_secs"] for _, options in made.sections()] == ["0", "900"]


def test_other_braces_stay_as_they_are() -> None:
    made = make("a-", 7, 0, 1, {"failover.resume_command": "run --resume {conversation} {name} {0} {{}}"})
    ((_, options),) = made.sections()
    assert options["failover.resume_command"] == "run --resume {conversation} a-7 {0} {{}}"


VALUES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=12)


@settings(max_examples=50, deadline=None)
@given(VALUES)
@example("run ; rm")
@example('""')
@example("a;b # c")
def test_a_value_is_either_read_back_as_it_was_given_or_refused(tmp_path_factory: Any, text: str) -> None:
    try:
        made = make("a-", 0, 1, 1, {"failover.args": text.strip()})
    except PoolError:
        return
    fleet = fleet_file.FleetFile(Path("circus.ini"), "", "", {}, (), (), ())
    if pool_file.problems(made, Path("p.ini"), fleet, None):
        return
    folder = tmp_path_factory.mktemp("read")
    (folder / "circus.ini").write_text("[circus]\ninclude = p.ini\n")
    (folder / "p.ini").write_text(made.text())
    read = fleet_file.read(folder / "circus.ini")
    assert parse("a", read.pools["a"], "") == made


def test_a_pool_is_known_again_from_its_file_and_can_have_another_size(ini: Path) -> None:
    made = make("ccl-", 4, 1, 2, TEMPLATE)
    (ini.parent / "fleet.d" / "p.ini").write_text(made.text())
    known = pool_file.pools_of(fleet_file.read(ini))["ccl"]
    assert known == made
    assert isinstance(known, Pool)
    assert known.resized(None, 5) == make("ccl-", 4, 1, 5, TEMPLATE)
    with pytest.raises(PoolError, match="--min 3 is more than --max 2"):
        known.resized(3, None)


@pytest.mark.parametrize(
    "prefix, start, least, most, options, said",
    [
        ("", 0, 0, 1, {}, "expected the beginning of identities"),
        ("Ccl-", 0, 0, 1, {}, "expected the beginning of identities"),
        ("-", 0, 0, 1, {}, "expected the beginning of identities"),
        ("../x", 0, 0, 1, {}, "expected the beginning of identities"),
        ("a]\n[watcher:b", 0, 0, 1, {}, "expected the beginning of identities"),
        ("a" * 62, 9, 0, 2, {}, "has 64 characters"),
        ("a-", -1, 0, 1, {}, "--start-index -1: expected 0 to"),
        ("a-", 10**29, 0, 1, {}, "expected 0 to"),
        ("a-", 0, 0, 0, {}, "--max 0: expected 1 to 1000"),
        ("a-", 0, 0, 1001, {}, "--max 1001: expected 1 to 1000"),
        ("a-", 0, -3, 1, {}, "--min -3: expected 0 to 1000"),
        ("a-", 0, 2, 1, {}, "--min 2 is more than --max 1"),
        ("a-", 0, 0, 1, {"failover.pool": "x"}, "the pool decides it"),
        ("a-", 0, 0, 1, {"autostart": "x"}, "the pool decides it"),
        ("a-", 0, 0, 1, {"idle_secs": "x"}, "did you mean failover.idle_secs"),
        ("a-", 0, 0, 1, {"x]": "x"}, "expected a name"),
        ("a-", 0, 0, 1, {"": "x"}, "expected a name"),
        ("a-", 0, 0, 1, {"priority": "1\n[watcher:b]"}, "characters that an ini file cannot hold"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_in_a_sentence(
    prefix: str, start: int, least: int, most: int, options: dict[str, str], said: str
) -> None:
    with pytest.raises(PoolError, match=said) as raised:
        make(prefix, start, least, most, options)
    assert str(raised.value).isprintable()


def test_a_section_that_says_no_pool_is_a_problem_of_validate(ini: Path) -> None:
    (ini.parent / "fleet.d" / "p.ini").write_text(
        "[failover-pool:a]\nprefix = b-\nstart_index = x\nmin = 0\n"
    )
    found = {(problem.section, problem.key) for problem in validate(ini).problems}
    assert found == {("failover-pool:a", "start_index"), ("failover-pool:a", "max")}
    with pytest.raises(Failed, match="start_index: found 'x', expected a whole number"):
        pool(ini, "list")


# -- the verb ----------------------------------------------------------------------------------------


def test_without_an_include_dir_the_line_to_add_is_said(ini: Path) -> None:
    ini.write_text(ini.read_text().replace("include_dir = fleet.d\n", ""))
    with pytest.raises(Failed, match=r"add the line `include_dir = fleet.d` below \[circus\]"):
        create(ini)


def test_a_new_pool_is_one_private_file_and_waits_for_circusd(
    ini: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(ini, as_json=True) == 0
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert (answer["circusd"], answer["written"], answer["pool"]) == ("not running", True, "ccl")
    assert answer["identities"] == ["ccl-0", "ccl-1", "ccl-2"]
    assert "at its next start" in told.err
    assert files(ini) == ["failover-pool-ccl.ini"]
    assert Path(answer["file"]).stat().st_mode & 0o777 == 0o600
    assert create(ini) == 0  # the very same again completes what was interrupted
    with pytest.raises(Failed, match="is there already.*`pool resize ccl`"):
        create(ini, max="4")
    assert pool(ini, "show", "ccl") == pool(ini, "list") == 0
    shown = capsys.readouterr().out
    assert "ccl: 1 to 3 agents" in shown and "ccl-2" in shown


def test_a_dry_run_shows_the_file_and_writes_nothing(ini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert create(ini, dry_run=True, working_dir=str(ini.parent / "{name}")) == 0
    told = capsys.readouterr()
    assert "[watcher:ccl-2]" in told.out and "missing" in told.err
    assert files(ini) == []


def test_missing_working_folders_are_named_and_made_when_asked_for(ini: Path) -> None:
    wanted = ini.parent / "w"
    with pytest.raises(Failed, match="missing: .*/w/ccl-0, .*--make-dirs"):
        create(ini, working_dir=f"{wanted}/{{name}}")
    assert files(ini) == []
    assert create(ini, working_dir=f"{wanted}/{{name}}", make_dirs=True) == 0
    assert sorted(os.listdir(wanted)) == ["ccl-0", "ccl-1", "ccl-2"]


@pytest.mark.parametrize("name", ["ccl-1", "CCL-1"])
def test_a_watcher_of_somebody_else_is_never_taken_over(ini: Path, name: str) -> None:
    other = ini.parent / "fleet.d" / "mine.ini"
    other.write_text(f"[watcher:{name}]\ncmd = sleep 1\n")
    with pytest.raises(Failed, match=rf"mine.ini has a watcher {name} already"):
        create(ini)
    assert create(ini, start_index="2", max="2") == 0
    with pytest.raises(Failed, match="no pool 'cc'; did you mean 'ccl'"):
        pool(ini, "resize", "cc", max="1")
    assert other.read_text() == f"[watcher:{name}]\ncmd = sleep 1\n"


def test_agents_that_could_not_be_are_refused_before_anything_is_written(ini: Path) -> None:
    with pytest.raises(Failed) as raised:
        create(ini, account="nobody", set=["failover.ide_secs=3", "failover.crash_max=0"])
    assert str(raised.value).count("\n") == 3  # each mistake once, not once an agent
    with pytest.raises(Failed, match="Circus reads 'run'"):
        create(ini, command="run ; rm")
    assert files(ini) == []


@pytest.mark.parametrize(
    "words, options, said",
    [
        ((), {}, "expected one of create"),
        (("make", "x"), {}, "expected one of create"),
        (("create",), {"max": "1"}, "takes the prefix"),
        (("create", "a-"), {}, "takes --max"),
        (("create", "a-"), {"max": "two"}, "--max 'two': expected a whole number"),
        (("create", "a-"), {"max": "9" * 40}, "expected a whole number"),
        (("create", "a-"), {"max": "1", "set": ["x"]}, "expected KEY=VALUE"),
        (("create", "a-"), {"max": "1", "runtime": "x", "set": ["failover.runtime=y"]}, "given twice"),
        (("resize", "a"), {}, "takes --min or --max"),
        (("resize", "a"), {"max": "1", "account": "x"}, "does not take --account"),
        (("list", "a"), {}, "takes no name"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    ini: Path, words: tuple[str, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ArgumentError, match=said):
        pool(ini, *words, **options)


def test_a_file_that_holds_more_than_the_pool_is_not_written_over(ini: Path) -> None:
    create(ini)
    path = ini.parent / "fleet.d" / "failover-pool-ccl.ini"
    path.write_text(path.read_text() + "\n[watcher:mine]\ncmd = sleep 1\n")
    with pytest.raises(Failed, match=r"\[watcher:mine\] is not of the pool"):
        pool(ini, "resize", "ccl", max="1")
    with pytest.raises(Failed, match=r"\[watcher:mine\] is not of the pool"):
        pool(ini, "remove", "ccl")
    assert any("is not as `failoverctl pool` wrote it" in note for note in validate(ini).notes)


def test_agents_that_never_were_leave_without_a_circusd(ini: Path) -> None:
    create(ini)
    assert pool(ini, "resize", "ccl", max="1") == 0
    assert list(fleet_file.read(ini).pools) == ["ccl"]
    assert len(fleet_file.read(ini).agents) == 1
    assert pool(ini, "remove", "ccl") == 0
    assert files(ini) == []


def test_sections_that_do_not_agree_on_the_minimum_of_their_pool_are_a_problem(ini: Path) -> None:
    create(ini)
    other = f"[watcher:eve]\ncmd = failover-session\nhooks.before_start = {fleet_file.ENROL}\n"
    other += "failover.command = run\nfailover.pool = ccl\n"
    (ini.parent / "fleet.d" / "other.ini").write_text(other)
    assert validate(ini).ok  # it says nothing, so it is not counted
    (ini.parent / "fleet.d" / "other.ini").write_text(other + "failover.pool_min = 2\n")
    (problem,) = validate(ini).problems
    assert (problem.section, problem.key) == ("watcher:eve", "failover.pool_min")
    assert "expected 1, as [watcher:ccl-0] says" in str(problem)
