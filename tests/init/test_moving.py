"""Whatever is killed at whatever step, the next run goes on with it, and an undo restores every byte."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from circus_failover.failure import Failed
from circus_failover.init import moving, plan, setting_up, steps
from circus_failover.init.moving import Header, Journal
from circus_failover.init.steps import Blocked, Kind, Step
from circus_failover.settings import Account
from tests.init.ground import home, planned, restored, snapshot, wish, write


def header(made: plan.Plan, base: Path) -> Header:
    assert made.refusals == ()
    return Header(made.steps, (), str(base / "fleet/state"), (str(base / "fleet"),), 0.0)


def two_homes(base: Path) -> Header:
    """Two homes with conversations in one project, a third to be made, and files to be replaced."""
    accounts = [Account(name, "claude", home(base, name, *said)) for name, said in HOMES.items()]
    write(base / "fleet/circus.ini", "mine\n")
    wanted = wish(base, *accounts, Account("new", "claude", base / "new"), force=True)
    return header(planned(wanted), base)


def two_file_systems(base: Path) -> Header:
    """The same, where the shared root is on another file system than the homes."""
    two_homes(base)
    accounts = [Account(name, "claude", base / name) for name in HOMES]
    wanted = wish(base, *accounts, force=True)
    ground = setting_up.ground(wanted, {})
    return header(plan.make(wanted, replace(ground, device=ground.device + 1), {}), base)


HOMES = {"a": ("p/1", "q/2"), "b": ("p/3", "r/4")}
SITUATIONS: list[Callable[[Path], Header]] = [two_homes, two_file_systems]


def killed_at(number: int, action: Callable[[Callable[[], None]], object]) -> bool:
    """Run an action in a process of its own that kills itself at a place; False when it got to its end."""
    child = os.fork()
    if child == 0:
        left = [number]

        def place() -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            action(place)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def journal(base: Path) -> Journal:
    return moving.read(moving.journals(base / "fleet")[-1])


def without_times(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Leave out when folders changed: those that are new have their own time in each run."""
    return {path: (what[0], what[2]) for path, what in found.items() if not path.endswith(".journal")}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_killed_at_each_step_the_next_run_goes_on_and_an_undo_restores_every_byte(
    situation: Callable[[Path], Header], memory: Path
) -> None:
    plain = memory / "plain"
    plain.mkdir()
    about = situation(plain)
    moving.go(moving.begin(plain / "fleet", about))
    expected = without_times(snapshot(plain))
    places = 2 * len(about.steps)
    assert places > 40
    for number in range(places):
        base = memory / str(number)
        base.mkdir()
        about = situation(base)
        before = snapshot(base)
        begun = moving.begin(base / "fleet", about)
        assert killed_at(number, partial(moving.go, begun))
        half_way = journal(base)
        if (number + number // 2) % 2:  # every other time, both before steps and after them
            moving.go(half_way)
            found = without_times(snapshot(base))
            assert {path: str(what).replace(str(base), str(plain)) for path, what in found.items()} == {
                path: str(what) for path, what in expected.items()
            }
            half_way = journal(base)
            assert half_way.whole
        assert moving.undo(half_way) == []
        assert restored(base, before), number


@pytest.mark.parametrize("situation", SITUATIONS)
def test_an_undo_that_is_killed_at_each_step_is_finished_by_the_next(
    situation: Callable[[Path], Header], memory: Path
) -> None:
    situation(memory)  # the homes
    before = snapshot(memory)
    number, begun = 0, True
    while begun:
        about = situation(memory) if number == 0 else _again(situation, memory)
        moving.go(moving.begin(memory / "fleet", about))
        begun = killed_at(number, lambda place: moving.undo(journal(memory), place))
        if begun:
            assert moving.undo(journal(memory)) == []
        assert restored(memory, before), number
        number += 1
    assert number > 40


def _again(situation: Callable[[Path], Header], base: Path) -> Header:
    """Plan once more what is as it was."""
    before = snapshot(base)
    about = situation(base)
    for path, (_, mtime, _) in before.items():
        os.utime(base / path, ns=(mtime, mtime), follow_symlinks=False)  # type: ignore[arg-type]
    return about


def test_conversations_that_came_later_go_back_with_the_first_home(memory: Path) -> None:
    moving.go(moving.begin(memory / "fleet", two_homes(memory)))
    write(memory / "b/projects/p/later.jsonl", "new")
    write(memory / "b/projects/r/later.jsonl", "new")
    assert moving.undo(journal(memory)) == []
    assert (memory / "a/projects/p/later.jsonl").read_text() == "new"
    assert (memory / "b/projects/r/later.jsonl").read_text() == "new"
    assert not (memory / "shared").exists()


def test_a_copy_that_has_changed_since_is_left_where_it_is(memory: Path) -> None:
    moving.go(moving.begin(memory / "fleet", two_file_systems(memory)))
    write(memory / "shared/projects/q/2.jsonl", "more\n")
    left = moving.undo(journal(memory))
    assert any("shared/projects" in line and "changed" in line for line in left)
    assert (memory / "shared/projects/q/2.jsonl").read_text() == "more\n"
    assert (memory / "a/projects/q/2.jsonl").read_text() == "a said q/2\n"


def test_a_file_that_was_edited_since_is_kept(memory: Path) -> None:
    moving.go(moving.begin(memory / "fleet", two_homes(memory)))
    ini = memory / "fleet/circus.ini"
    ini.write_text("edited\n")
    (left,) = moving.undo(journal(memory))
    assert "circus.ini.edited-1" in left
    assert (memory / "fleet/circus.ini.edited-1").read_text() == "edited\n"
    assert ini.read_text() == "mine\n"


def test_what_has_appeared_in_the_way_is_not_overwritten_and_the_way_back_stays(memory: Path) -> None:
    about = two_homes(memory)
    before = snapshot(memory)
    begun = moving.begin(memory / "fleet", about)
    write(memory / "shared/projects/mine.jsonl", "mine")
    with pytest.raises(Failed, match="projects.*something appeared there"):
        moving.go(begun)
    assert (memory / "shared/projects/mine.jsonl").read_text() == "mine"
    left = moving.undo(journal(memory))
    assert [line for line in left if "is not empty" in line]
    (memory / "shared/projects/mine.jsonl").unlink()
    (memory / "shared/projects").rmdir()
    (memory / "shared").rmdir()
    assert restored(memory, before)


def test_a_link_that_was_replaced_since_stops_the_undo_and_says_so(memory: Path) -> None:
    moving.go(moving.begin(memory / "fleet", two_homes(memory)))
    link = memory / "a/projects"
    link.unlink()
    link.mkdir()
    with pytest.raises(Failed, match="expected the link to"):
        moving.undo(journal(memory))
    link.rmdir()
    moving.undo(journal(memory))
    assert (memory / "a/projects/p/1.jsonl").exists()


def test_a_line_that_a_power_cut_tore_is_ignored_and_the_next_is_not_lost(memory: Path) -> None:
    about = Header((Step(Kind.FOLDER, str(memory / "made"), mode=0o700),), (), "/s", (), 0.0)
    begun = moving.begin(memory, about)
    with begun.path.open("ab") as file:
        file.write(b'{"beg')
    torn = moving.read(begun.path)
    assert torn.at == -1
    moving.go(torn)
    assert moving.read(begun.path).whole and moving.read(begun.path).at == 0


def test_a_copy_is_compared_and_a_broken_one_is_made_anew(memory: Path) -> None:
    write(memory / "from/x/y", "text")
    (memory / "from/link").symlink_to("x/y")
    write(memory / ("to" + steps.PARTIAL) / "half", "half")
    steps.do(Step(Kind.COPY, str(memory / "from"), str(memory / "to")))
    assert steps.same(str(memory / "from"), str(memory / "to"))
    assert not (memory / ("to" + steps.PARTIAL)).exists()
    for change in (lambda p: p.write_text("tExt"), lambda p: p.chmod(0o600), lambda p: p.unlink()):
        write(memory / "to/x/y", "text")
        assert steps.same(str(memory / "from"), str(memory / "to"))
        change(memory / "to/x/y")
        assert not steps.same(str(memory / "from"), str(memory / "to"))


def test_the_journal_is_told_of_each_step_before_it_is_taken(memory: Path) -> None:
    made = [str(memory / name) for name in "abc"]
    about = Header(tuple(Step(Kind.FOLDER, path, mode=0o700) for path in made), (), "/s", (), 0.0)
    told = []
    moving.go(
        begun := moving.begin(memory, about),
        lambda: told.append(
            (moving.read(begun.path).at, [os.path.exists(path) for path in made].count(True))
        ),
    )
    assert told == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)]
    told.clear()
    moving.undo(
        moving.read(begun.path),
        lambda: told.append(
            (moving.read(begun.path).at, [os.path.exists(path) for path in made].count(True))
        ),
    )
    assert told == [(2, 3), (2, 2), (1, 2), (1, 1), (0, 1), (0, 0)]


@pytest.mark.skipif(not os.path.exists("/proc/uptime"), reason="needs a file that changes while it is read")
def test_a_copy_that_differs_is_never_put_in_place(memory: Path) -> None:
    copy = Step(Kind.COPY, "/proc/uptime", str(memory / "to"))
    with pytest.raises(Blocked, match="changed while it was copied"):
        steps.do(copy)
    assert not (memory / "to").exists()
    assert steps.undo(copy, False) is None
    assert list(memory.iterdir()) == []


def test_the_journal_is_readable_by_its_owner_alone(memory: Path) -> None:
    begun = moving.begin(memory, Header((), (), "/s", (), 0.0))
    assert begun.path.stat().st_mode & 0o777 == 0o600


def test_a_journal_that_cannot_be_understood_is_an_error_that_names_it(memory: Path) -> None:
    (memory / ".failover-init-1.journal").write_text("[]\n")
    with pytest.raises(Failed, match="failover-init-1.journal"):
        setting_up.unfinished(memory)
