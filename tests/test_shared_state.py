"""The gate against real folders and real links."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from circus_failover import shared_state
from circus_failover.policy.gate import Divergence
from circus_failover.settings import Account, Settings, Shared

LINKS = ("projects", "file-history", "session-env")


def fleet(base: Path, *, strict: bool = True, runtime: str = "command") -> Settings:
    """Two accounts that are in order."""
    shared = Shared(base / "shared", strict)
    accounts = (Account("a", runtime, base / "a"), Account("b", runtime, base / "b"))
    settings = Settings(base / "failover.yaml", base / "state", shared, accounts, {})
    for link in shared.links(runtime):
        (base / "shared" / link).mkdir(parents=True, mode=0o700)
        for account in accounts:
            account.home.mkdir(exist_ok=True)
            (account.home / link).symlink_to(base / "shared" / link)
    return settings


def kinds(settings: Settings, account: str | None = "a") -> list[Divergence]:
    chosen = None if account is None else settings.account(account)
    return [failure.kind for failure in shared_state.check(settings, chosen).failures]


def relink(path: Path, target: str | Path) -> None:
    path.unlink()
    path.symlink_to(target)


def wreck_missing(base: Path) -> None:
    (base / "a/projects").unlink()


def wreck_elsewhere(base: Path) -> None:
    (base / "other").mkdir()
    relink(base / "a/projects", base / "other")


def wreck_dangling(base: Path) -> None:
    (base / "shared/projects").rmdir()
    wreck_b(base)


def wreck_b(base: Path) -> None:
    """Leaves account b out of the way of a wreck of the shared folder itself."""
    (base / "b/projects").unlink()
    (base / "b/projects").mkdir()


def wreck_loop(base: Path) -> None:
    relink(base / "a/projects", "projects2")
    (base / "a/projects2").symlink_to("projects")


def wreck_folder(base: Path) -> None:
    (base / "a/projects").unlink()
    (base / "a/projects").mkdir()


def wreck_file(base: Path) -> None:
    (base / "a/projects").unlink()
    (base / "a/projects").write_text("mine")


def wreck_target_file(base: Path) -> None:
    wreck_dangling(base)
    (base / "shared/projects").write_text("a file")


def wreck_target_link(base: Path) -> None:
    wreck_dangling(base)
    (base / "big").mkdir()
    (base / "shared/projects").symlink_to(base / "big")


def wreck_writable(base: Path) -> None:
    wreck_b(base)
    (base / "shared/projects").chmod(0o777)


def wreck_never(base: Path) -> None:
    (base / "creds").write_text("{}")
    (base / "a/.credentials.json").symlink_to(base / "creds")


def wreck_never_dangling(base: Path) -> None:
    (base / "a/.credentials.json").symlink_to(base / "nowhere")


def wreck_home_gone(base: Path) -> None:
    (base / "a").rename(base / "gone")


def wreck_home_file(base: Path) -> None:
    wreck_home_gone(base)
    (base / "a").write_text("")


def wreck_home_dangling(base: Path) -> None:
    wreck_home_gone(base)
    (base / "a").symlink_to("nowhere")


def wreck_home_endless(base: Path) -> None:
    """A chain of links that is no loop, and longer than the kernel or Python would follow."""
    wreck_home_gone(base)
    endless(base, "a")


def wreck_endless(base: Path) -> None:
    (base / "a/projects").unlink()
    endless(base, "a/projects")


def endless(base: Path, name: str) -> None:
    (base / "links").mkdir()
    for number in range(1500):
        (base / f"links/{number}").symlink_to(f"{number + 1}")
    (base / name).symlink_to(base / "links/0")


def wreck_home_inside(base: Path) -> None:
    (base / "a").rename(base / "b/inner")
    (base / "a").symlink_to(base / "b/inner")


WRECKS: list[tuple[Callable[[Path], None], Divergence]] = [
    (wreck_missing, Divergence.MISSING_LINK),
    (wreck_elsewhere, Divergence.ELSEWHERE),
    (wreck_dangling, Divergence.DANGLING),
    (wreck_loop, Divergence.LOOP),
    (wreck_folder, Divergence.REAL_FOLDER),
    (wreck_file, Divergence.REAL_FILE),
    (wreck_target_file, Divergence.TARGET_NOT_FOLDER),
    (wreck_target_link, Divergence.ELSEWHERE),
    (wreck_writable, Divergence.TARGET_WRITABLE),
    (wreck_never, Divergence.NEVER_LINKED),
    (wreck_never_dangling, Divergence.NEVER_LINKED),
    (wreck_home_gone, Divergence.HOME_MISSING),
    (wreck_home_file, Divergence.HOME_NOT_FOLDER),
    (wreck_home_dangling, Divergence.HOME_MISSING),
    (wreck_home_endless, Divergence.HOME_NOT_FOLDER),
    (wreck_endless, Divergence.LOOP),
    (wreck_home_inside, Divergence.HOME_INSIDE),
]


def snapshot(base: Path) -> list[tuple[str, int, int, str]]:
    return [
        (
            str(path),
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            os.readlink(path) if path.is_symlink() else "",
        )
        for path in sorted(base.rglob("*"))
    ]


@pytest.mark.parametrize("wreck, kind", WRECKS, ids=[row[0].__name__ for row in WRECKS])
def test_each_divergence_on_disk_is_found_and_nothing_is_touched(
    tmp_path: Path, wreck: Callable[[Path], None], kind: Divergence
) -> None:
    settings = fleet(tmp_path, strict=False)
    assert kinds(settings) == []
    wreck(tmp_path)
    before = snapshot(tmp_path)
    assert kinds(settings) == [kind]
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_shared_folder_of_somebody_else_refuses(tmp_path: Path) -> None:
    settings = fleet(tmp_path, strict=False)
    os.chown(tmp_path / "shared/projects", 12345, -1)
    assert kinds(settings) == [Divergence.TARGET_OWNER]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to any group")
def test_a_shared_folder_that_another_group_may_write_to_refuses(tmp_path: Path) -> None:
    settings = fleet(tmp_path, strict=False)
    (tmp_path / "shared/projects").chmod(0o770)
    assert kinds(settings) == []
    os.chown(tmp_path / "shared/projects", -1, 12345)
    assert kinds(settings) == [Divergence.TARGET_WRITABLE]


def test_a_hard_link_to_another_accounts_credentials_refuses_both(tmp_path: Path) -> None:
    settings = fleet(tmp_path)
    (tmp_path / "a/.credentials.json").write_text("{}")
    assert kinds(settings) == []
    os.link(tmp_path / "a/.credentials.json", tmp_path / "b/.credentials.json")
    assert kinds(settings) == [Divergence.NEVER_LINKED, Divergence.NEVER_LINKED]
    # Not strict, each launch is judged by its own account, which is one of the two.
    settings = replace(settings, shared=replace(settings.shared, strict=False))
    assert kinds(settings, "a") == kinds(settings, "b") == [Divergence.NEVER_LINKED]
    assert kinds(settings, None) == []


@pytest.mark.parametrize(("home", "root"), [("a", "a"), ("a", "a/projects"), ("a", "a/projects/deep")])
def test_a_shared_folder_in_the_place_of_its_own_link_is_said_and_nothing_is_to_be_removed(
    tmp_path: Path, home: str, root: str
) -> None:
    shared = Shared(tmp_path / root, links_by_runtime={"command": ("projects",)})
    accounts = (Account("a", "command", tmp_path / home),)
    settings = Settings(tmp_path / "failover.yaml", tmp_path / "state", shared, accounts, {})
    (tmp_path / root / "projects").mkdir(parents=True)
    before = snapshot(tmp_path)
    (failure,) = shared_state.check(settings, accounts[0]).failures
    assert failure.kind is Divergence.HOME_SHARED
    assert "is in its place" in failure.found
    assert "remove" not in failure.message
    assert shared_state.create(settings) == []
    assert snapshot(tmp_path) == before


def test_a_missing_root_is_one_failure(tmp_path: Path) -> None:
    settings = fleet(tmp_path)
    (tmp_path / "shared").rename(tmp_path / "moved")
    assert kinds(settings) == [Divergence.ROOT_MISSING]


@pytest.mark.parametrize(
    "target", ["../shared/projects", "../alias/projects", "../alias/../shared/./projects"]
)
def test_a_link_that_reaches_the_same_folder_another_way_is_right(tmp_path: Path, target: str) -> None:
    settings = fleet(tmp_path)
    (tmp_path / "alias").symlink_to("shared")
    relink(tmp_path / "a/projects", target)
    assert kinds(settings) == []


def test_a_root_that_is_itself_a_link_is_right(tmp_path: Path) -> None:
    settings = fleet(tmp_path)
    (tmp_path / "shared").rename(tmp_path / "disk")
    (tmp_path / "shared").symlink_to("disk")
    assert kinds(settings) == []


@pytest.mark.parametrize("runtime", ["claude", "codex", "command"])
def test_an_account_in_order_passes_in_every_runtime(tmp_path: Path, runtime: str) -> None:
    assert kinds(fleet(tmp_path, runtime=runtime)) == []


@pytest.mark.parametrize("strict, account, ok", [(True, "a", False), (True, None, False), (False, "a", True),
                                                 (False, "b", False), (False, None, True)])  # fmt: skip
def test_strict_makes_every_account_count(
    tmp_path: Path, strict: bool, account: str | None, ok: bool
) -> None:
    settings = fleet(tmp_path, strict=strict)
    (tmp_path / "b/projects").unlink()
    assert (kinds(settings, account) == []) is ok


def test_the_gate_costs_less_than_a_millisecond_for_three_links_and_two_accounts(tmp_path: Path) -> None:
    settings = fleet(tmp_path)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        verdict = shared_state.check(settings, settings.accounts[0])
        times.append(time.perf_counter() - start)
    assert verdict.ok
    # The median, so that a busy machine does not fail the test.
    assert sorted(times)[100] < 0.001


def bare(base: Path) -> Settings:
    accounts = (Account("a", "command", base / "homes/a"), Account("b", "codex", base / "homes/b"))
    return Settings(base / "failover.yaml", base / "state", Shared(base / "srv/shared"), accounts, {})


def test_create_makes_everything_that_is_missing_and_then_nothing(tmp_path: Path) -> None:
    settings = bare(tmp_path)
    done = shared_state.create(settings)
    assert kinds(settings) == []
    # homes, srv, root and two homes; five shared folders; five links
    assert len(done) == 5 + 5 + 5
    assert all(line.startswith("made the ") for line in done)
    for folder in ("homes", "homes/a", "srv", "srv/shared", "srv/shared/projects", "srv/shared/sessions"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700
    before = snapshot(tmp_path)
    assert shared_state.create(settings) == []
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("wreck", [row[0] for row in WRECKS])
def test_create_leaves_what_diverges_as_it_is(tmp_path: Path, wreck: Callable[[Path], None]) -> None:
    settings = fleet(tmp_path)
    wreck(tmp_path)
    before = snapshot(tmp_path)
    shared_state.create(settings)
    after = {row[0]: (row[1], row[3]) for row in snapshot(tmp_path)}
    assert {row[0]: (row[1], row[3]) for row in before}.items() <= after.items()
    assert shared_state.create(settings) == []


def test_create_makes_the_folder_that_a_right_link_dangles_for(tmp_path: Path) -> None:
    settings = fleet(tmp_path)
    (tmp_path / "shared/projects").rmdir()
    assert shared_state.create(settings) == [f"made the folder {tmp_path}/shared/projects"]
    assert kinds(settings) == []


def test_create_makes_the_home_and_the_root_that_a_link_leads_to(tmp_path: Path) -> None:
    settings = bare(tmp_path)
    (tmp_path / "homes").mkdir()
    (tmp_path / "srv").mkdir()
    for name in ("homes/a", "srv/shared"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    found = {failure.found for failure in shared_state.check(settings, None).failures}
    assert f"nothing there: it leads to {tmp_path}/disk/homes/a" in found
    assert f"nothing there: it leads to {tmp_path}/disk/srv/shared" in found
    shared_state.create(settings)
    assert kinds(settings) == []
    assert (tmp_path / "disk/homes/a/projects").is_symlink()


def test_create_has_nothing_to_do_without_accounts(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "f.yaml", tmp_path / "state", Shared(tmp_path / "shared"), (), {})
    assert shared_state.create(settings) == []
    assert list(tmp_path.iterdir()) == []


def test_create_makes_no_home_inside_another(tmp_path: Path) -> None:
    accounts = (Account("a", "command", tmp_path / "a"), Account("b", "command", tmp_path / "a/b"))
    settings = Settings(tmp_path / "f.yaml", tmp_path / "state", Shared(tmp_path / "shared"), accounts, {})
    shared_state.create(settings)
    assert (tmp_path / "a/projects").is_symlink()
    assert not (tmp_path / "a/b").exists()


def test_create_links_to_nothing_but_a_real_folder(tmp_path: Path) -> None:
    settings = bare(tmp_path)
    (tmp_path / "srv/shared").mkdir(parents=True)
    (tmp_path / "srv/shared/projects").write_text("a file")
    shared_state.create(settings)
    assert not (tmp_path / "homes/a/projects").is_symlink()
    assert (tmp_path / "homes/a/file-history").is_symlink()


def test_create_says_again_what_it_could_not_make(tmp_path: Path) -> None:
    settings = bare(tmp_path)
    (tmp_path / "srv").write_text("a file where a folder should be")
    for _ in range(2):
        lines = shared_state.create(settings)
        assert any(line.startswith(f"could not make the folder {tmp_path}/srv/shared: ") for line in lines)
    assert (tmp_path / "srv").read_text() == "a file where a folder should be"
