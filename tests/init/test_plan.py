"""What an init would do, and what it refuses, against real folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from circus_failover.init import files, plan, setting_up
from circus_failover.init.contents import Item
from circus_failover.init.plan import Plan
from circus_failover.init.steps import Kind
from circus_failover.settings import Account
from tests.init.ground import home, planned, wish, write


def claude(base: Path, name: str, *conversations: str) -> Account:
    return Account(name, "claude", home(base, name, *conversations))


def links(made: Plan) -> set[str]:
    return {Path(step.path).name for step in made.steps if step.kind is Kind.LINK}


def test_a_home_without_data_gets_links_and_nothing_is_moved(tmp_path: Path) -> None:
    made = planned(wish(tmp_path, claude(tmp_path, "a"), move_data=False))
    assert made.refusals == () and made.moves == ()
    assert links(made) == {"projects", "file-history", "session-env"}
    assert [step.kind for step in made.steps[-2:]] == [Kind.WRITE, Kind.WRITE]


def test_data_is_not_moved_without_being_told(tmp_path: Path) -> None:
    made = planned(wish(tmp_path, claude(tmp_path, "a", "p/1"), move_data=False))
    assert [move.source for move in made.moves] == [
        str(tmp_path / "a/projects"), str(tmp_path / "a/file-history")
    ]  # fmt: skip
    assert made.moves[0].files == 1 and made.moves[0].size == len("a said p/1\n")
    assert any("--move-data" in refusal and "--undo" in refusal for refusal in made.refusals)
    assert planned(wish(tmp_path, Account("a", "claude", tmp_path / "a"))).refusals == ()


def test_conversations_of_two_homes_in_one_project_become_one_folder(tmp_path: Path) -> None:
    accounts = (claude(tmp_path, "a", "p/1", "q/2"), claude(tmp_path, "b", "p/3", "r/4"))
    made = planned(wish(tmp_path, *accounts))
    assert made.refusals == ()
    renamed = {(step.path, step.target) for step in made.steps if step.kind is Kind.RENAME}
    shared = tmp_path / "shared/projects"
    assert (str(tmp_path / "a/projects"), str(shared)) in renamed
    assert (str(tmp_path / "b/projects/p/3.jsonl"), str(shared / "p/3.jsonl")) in renamed
    assert (str(tmp_path / "b/projects/r"), str(shared / "r")) in renamed


def test_the_same_conversation_in_two_homes_refuses_and_is_named(tmp_path: Path) -> None:
    accounts = (claude(tmp_path, "a", "p/1", "p/2"), claude(tmp_path, "b", "p/1", "p/3"))
    (refused, files_too) = planned(wish(tmp_path, *accounts)).refusals
    assert "p/1.jsonl" in refused and "p/3" not in refused
    assert "p-1" in files_too


def test_below_a_project_the_same_folder_twice_is_a_collision(tmp_path: Path) -> None:
    accounts = (claude(tmp_path, "a"), claude(tmp_path, "b"))
    write(tmp_path / "a/projects/p/memory/ONE.md")
    write(tmp_path / "b/projects/p/memory/TWO.md")
    (refused,) = planned(wish(tmp_path, *accounts)).refusals
    assert "p/memory" in refused


def test_days_of_two_codex_homes_become_one_tree(tmp_path: Path) -> None:
    write(tmp_path / "a/sessions/2026/11/21/rollout-1.jsonl")
    write(tmp_path / "b/sessions/2026/11/21/rollout-2.jsonl")
    accounts = (Account("a", "codex", tmp_path / "a"), Account("b", "codex", tmp_path / "b"))
    made = planned(wish(tmp_path, *accounts))
    assert made.refusals == ()
    assert str(tmp_path / "shared/sessions/2026/11/21/rollout-2.jsonl") in {s.target for s in made.steps}


def test_another_file_system_means_a_copy_and_the_original_stays(tmp_path: Path) -> None:
    wanted = wish(tmp_path, claude(tmp_path, "a", "p/1"))
    ground = setting_up.ground(wanted, {})
    made = plan.make(wanted, replace(ground, device=ground.device + 1), {})
    move = made.moves[0]
    assert move.copied and move.aside == str(tmp_path / "a/projects.before-init-1")
    kinds = [(step.kind, step.path) for step in made.steps if "projects" in step.path]
    at = kinds.index((Kind.COPY, str(tmp_path / "a/projects")))
    assert kinds[at + 1] == (Kind.RENAME, str(tmp_path / "a/projects"))
    assert kinds[at + 2] == (Kind.LINK, str(tmp_path / "a/projects"))


def test_an_existing_file_is_refused_and_force_keeps_a_backup(tmp_path: Path) -> None:
    wanted = wish(tmp_path, claude(tmp_path, "a"))
    write(wanted.folder / "circus.ini", "mine")
    (refused,) = planned(wanted).refusals
    assert "circus.ini" in refused and "--force" in refused
    made = planned(replace(wanted, force=True))
    assert made.refusals == ()
    backup = next(step for step in made.steps if step.kind is Kind.RENAME)
    assert backup.target == str(wanted.folder / "circus.ini.backup-1")


@pytest.mark.parametrize("wreck", ["elsewhere", "file", "credentials"])
def test_what_the_gate_would_refuse_is_refused_before_anything_is_done(tmp_path: Path, wreck: str) -> None:
    account = claude(tmp_path, "a")
    if wreck == "elsewhere":
        (tmp_path / "other").mkdir()
        (account.home / "projects").symlink_to(tmp_path / "other")
    elif wreck == "file":
        write(account.home / "projects")
    else:
        (account.home / ".credentials.json").rename(tmp_path / "c")
        (account.home / ".credentials.json").symlink_to(tmp_path / "c")
    assert len(planned(wish(tmp_path, account)).refusals) == 1


def test_a_home_that_is_not_there_is_made_only_for_a_second_account(tmp_path: Path) -> None:
    gone = Account("gone", "claude", tmp_path / "gone")
    (refused,) = planned(wish(tmp_path, gone)).refusals
    assert "--second-account" in refused
    made = planned(wish(tmp_path, Account("new", "claude", tmp_path / "new")))
    assert made.refusals == ()
    assert str(tmp_path / "new") in {step.path for step in made.steps if step.kind is Kind.FOLDER}


def test_homes_that_are_in_order_need_only_the_files(tmp_path: Path) -> None:
    account = claude(tmp_path, "a")
    for name in ("projects", "file-history", "session-env"):
        (tmp_path / "shared" / name).mkdir(parents=True, mode=0o700)
        (account.home / name).symlink_to(tmp_path / "shared" / name)
    made = planned(wish(tmp_path, account))
    assert made.refusals == ()
    assert {step.kind for step in made.steps} == {Kind.KEEP_TIMES, Kind.WRITE}


def test_nothing_shared_touches_no_home(tmp_path: Path) -> None:
    wanted = replace(wish(tmp_path, claude(tmp_path, "a", "p/1"), move_data=False), root=None)
    made = planned(wanted)
    assert made.refusals == () and {step.kind for step in made.steps} == {Kind.WRITE}
    assert "links: []" in files.render(wanted)[str(wanted.folder / "failover.yaml")]


def test_what_cannot_be_looked_at_is_not_moved(tmp_path: Path) -> None:
    wanted = wish(tmp_path, claude(tmp_path, "a", "p/1"))
    ground = setting_up.ground(wanted, {})
    items: dict[str, Item] = dict(ground.homes["a"].items)
    items["projects"] = replace(items["projects"], trouble="another file system is mounted on x")
    troubled = replace(ground, homes={"a": replace(ground.homes["a"], items=items)})
    assert any("another file system" in refusal for refusal in plan.make(wanted, troubled, {}).refusals)


@pytest.mark.parametrize("root", ["a", "a/projects", "link"])
def test_the_shared_folder_is_never_in_a_home(tmp_path: Path, root: str) -> None:
    wanted = replace(wish(tmp_path, claude(tmp_path, "a", "p/1")), root=tmp_path / root)
    (tmp_path / "link").symlink_to("a")
    assert any("is in its home" in refusal for refusal in planned(wanted).refusals)
