"""The gate's decision table: what is found at one link, name or home, and which divergence that is."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circus_failover.policy import gate
from circus_failover.policy.gate import (
    Divergence,
    Entry,
    Evidence,
    Failure,
    Folder,
    Home,
    Link,
    Never,
    Target,
    judge,
)

UID, GID = 1000, 1000
ROOT = Folder("/shared", "/shared", Target.FOLDER)
GOOD = Link("projects", Entry.LINK, "/shared/projects", Target.FOLDER, "/shared/projects", UID, GID, 0o40700)
HOME = Home("a", Folder("/home/a", "/home/a", Target.FOLDER), (GOOD,), (Never("auth.json", Entry.FILE),))
OTHERS = (("a", "/home/a"), ("b", "/home/b"))


def evidence(*homes: Home, root: Folder = ROOT, others: tuple[tuple[str, str], ...] = OTHERS) -> Evidence:
    return Evidence(UID, GID, root, homes, others)


def kinds(found: Evidence, strict: bool = True, account: str | None = "a") -> list[Divergence]:
    return [failure.kind for failure in judge(found, strict, account).failures]


# what stands where the link should be                                            what it is called
LINKS: list[tuple[str, Link, Divergence | None]] = [
    ("the right link", GOOD, None),
    ("the right link by way of another", replace(GOOD, text="/via/projects"), None),
    ("a folder its own group may write to", replace(GOOD, mode=0o40770), None),
    ("another group's folder, which it may read", replace(GOOD, mode=0o40750, gid=GID + 1), None),
    ("a folder others may read", replace(GOOD, mode=0o40755), None),
    ("nothing", Link("projects", Entry.MISSING), Divergence.MISSING_LINK),
    ("a link elsewhere", replace(GOOD, text="/x", canonical="/x"), Divergence.ELSEWHERE),
    ("a link elsewhere, where nothing is", replace(GOOD, text="/x", canonical="/x", target=Target.MISSING),
     Divergence.ELSEWHERE),
    ("a link to a name that starts so", replace(GOOD, canonical="/shared/projects2"), Divergence.ELSEWHERE),
    ("the right link, where nothing is", replace(GOOD, target=Target.MISSING), Divergence.DANGLING),
    ("a loop", replace(GOOD, text="projects", target=Target.LOOP, canonical="/home/a"), Divergence.LOOP),
    ("a real folder", Link("projects", Entry.FOLDER), Divergence.REAL_FOLDER),
    ("a real file", Link("projects", Entry.FILE), Divergence.REAL_FILE),
    ("a fifo", Link("projects", Entry.OTHER), Divergence.REAL_FILE),
    ("the right link, to a file", replace(GOOD, target=Target.FILE), Divergence.TARGET_NOT_FOLDER),
    ("somebody else's folder", replace(GOOD, uid=UID + 1), Divergence.TARGET_OWNER),
    ("a folder everybody may write to", replace(GOOD, mode=0o40702), Divergence.TARGET_WRITABLE),
    ("a sticky one everybody may write to", replace(GOOD, mode=0o41777), Divergence.TARGET_WRITABLE),
    ("a folder another group may write to", replace(GOOD, mode=0o40770, gid=GID + 1),
     Divergence.TARGET_WRITABLE),
    ("what cannot be looked at", Link("projects", Entry.UNREADABLE, error="Permission denied"),
     Divergence.UNREADABLE),
    ("a link whose end cannot be looked at", replace(GOOD, target=Target.UNREADABLE, error="I/O error"),
     Divergence.UNREADABLE),
]  # fmt: skip


@pytest.mark.parametrize("link, kind", [row[1:] for row in LINKS], ids=[row[0] for row in LINKS])
def test_each_thing_in_place_of_a_link_has_its_own_verdict(link: Link, kind: Divergence | None) -> None:
    verdict = judge(evidence(replace(HOME, links=(link,))), True, "a")
    assert [failure.kind for failure in verdict.failures] == ([] if kind is None else [kind])
    assert verdict.ok is (kind is None)
    for failure in verdict.failures:
        assert (failure.account, failure.home, failure.link) == ("a", "/home/a", "projects")
        assert "/home/a" in failure.message and "projects" in failure.message
        assert failure.expected in failure.message and failure.found in failure.message and failure.remedy


def test_no_two_divergences_share_a_message() -> None:
    messages: dict[str, Divergence | None] = {}
    for _, link, kind in LINKS:
        for failure in judge(evidence(replace(HOME, links=(link,))), True, "a").failures:
            assert messages.setdefault(failure.found, kind) == kind


FOLDERS: list[tuple[str, Folder, list[Divergence]]] = [
    ("there", HOME.folder, []),
    ("missing", Folder("/home/a", "/home/a", Target.MISSING), [Divergence.HOME_MISSING]),
    ("a file", Folder("/home/a", "/home/a", Target.FILE), [Divergence.HOME_NOT_FOLDER]),
    ("a loop", Folder("/home/a", "/home/a", Target.LOOP), [Divergence.HOME_NOT_FOLDER]),
    ("unreadable", Folder("/home/a", "/home/a", Target.UNREADABLE, "I/O error"), [Divergence.UNREADABLE]),
    ("inside another", Folder("/home/a", "/home/b/a", Target.FOLDER), [Divergence.HOME_INSIDE]),
    ("another's by a link", Folder("/home/a", "/home/b", Target.FOLDER), [Divergence.HOME_INSIDE]),
    ("beside a name that starts alike", Folder("/home/a", "/home/b2", Target.FOLDER), []),
    (
        "inside a shared folder",
        Folder("/home/a", "/shared/projects/a", Target.FOLDER),
        [Divergence.HOME_SHARED],
    ),
    ("inside the shared root", Folder("/home/a", "/shared/homes/a", Target.FOLDER), []),
]


@pytest.mark.parametrize("folder, expected", [row[1:] for row in FOLDERS], ids=[row[0] for row in FOLDERS])
def test_a_home_must_be_a_folder_of_its_own(folder: Folder, expected: list[Divergence]) -> None:
    assert kinds(evidence(replace(HOME, folder=folder))) == expected


NEVER: list[tuple[str, Never, list[Divergence]]] = [
    ("its own file", Never("auth.json", Entry.FILE, identity=(1, 7)), []),
    ("nothing", Never("auth.json", Entry.MISSING), []),
    ("a link", Never("auth.json", Entry.LINK, "anywhere", (1, 9)), [Divergence.NEVER_LINKED]),
    ("a hard link to another account's", Never("auth.json", Entry.FILE, identity=(1, 8)),
     [Divergence.NEVER_LINKED]),
    ("unreadable", Never("auth.json", Entry.UNREADABLE, error="I/O error"), [Divergence.UNREADABLE]),
]  # fmt: skip


@pytest.mark.parametrize("never, expected", [row[1:] for row in NEVER], ids=[row[0] for row in NEVER])
def test_what_must_never_be_shared_is_the_accounts_own(never: Never, expected: list[Divergence]) -> None:
    other = Home(
        "b", Folder("/home/b", "/home/b", Target.FOLDER), (), (Never("x", Entry.FILE, identity=(1, 8)),)
    )
    failures = judge(evidence(replace(HOME, never=(never,)), other), True, "a").failures
    assert [failure.kind for failure in failures if failure.account == "a"] == expected


ROOTS = [
    (Folder("/shared", "/shared", Target.MISSING), Divergence.ROOT_MISSING),
    (Folder("/shared", "/shared", Target.FILE), Divergence.ROOT_NOT_FOLDER),
    (Folder("/shared", "/shared", Target.LOOP), Divergence.ROOT_NOT_FOLDER),
    (Folder("/shared", "/shared", Target.UNREADABLE, "I/O error"), Divergence.UNREADABLE),
]


@pytest.mark.parametrize("root, kind", ROOTS)
def test_a_bad_root_is_said_once_and_not_of_every_link(root: Folder, kind: Divergence) -> None:
    dangling = replace(HOME, links=(replace(GOOD, target=Target.MISSING),))
    assert kinds(evidence(dangling, root=root)) == [kind]


BAD = replace(HOME, links=(Link("projects", Entry.MISSING),))
BAD_B = replace(BAD, account="b", folder=Folder("/home/b", "/home/b", Target.FOLDER))


@pytest.mark.parametrize(
    "strict, account, homes, refused_for",
    [
        (True, "a", (HOME, BAD_B), ["b"]),
        (True, None, (HOME, BAD_B), ["b"]),
        (True, "a", (BAD, BAD_B), ["a", "b"]),
        (False, "a", (HOME, BAD_B), []),
        (False, "b", (HOME, BAD_B), ["b"]),
        (False, None, (BAD, BAD_B), []),
    ],
)
def test_strict_counts_every_account_and_otherwise_only_the_agents_own(
    strict: bool, account: str | None, homes: tuple[Home, ...], refused_for: list[str]
) -> None:
    verdict = judge(evidence(*homes), strict, account)
    assert [failure.account for failure in verdict.failures] == refused_for
    assert verdict.ok is not bool(refused_for)


@pytest.mark.parametrize("strict", [True, False])
def test_an_account_without_evidence_refuses(strict: bool) -> None:
    assert kinds(evidence(HOME), strict, "ghost") == [Divergence.UNKNOWN_ACCOUNT]


def test_all_failures_of_all_accounts_are_listed_together() -> None:
    links = (Link("projects", Entry.MISSING), Link("plans", Entry.FOLDER))
    home = replace(HOME, links=links, never=(Never("auth.json", Entry.LINK, "x"),))
    assert kinds(evidence(home, BAD_B)) == [
        Divergence.MISSING_LINK,
        Divergence.REAL_FOLDER,
        Divergence.NEVER_LINKED,
        Divergence.MISSING_LINK,
    ]


def test_an_accepted_gate_says_how_many_accounts_it_judged() -> None:
    verdict = judge(evidence(HOME), True, "a")
    assert (verdict.ok, verdict.accounts, verdict.reason) == (True, 1, "")


@given(text=st.text(max_size=3000), home=st.text(min_size=1, max_size=3000))
def test_a_hostile_link_cannot_break_out_of_the_message(text: str, home: str) -> None:
    link = replace(GOOD, text=text, canonical=text)
    found = replace(HOME, folder=replace(HOME.folder, path=home), links=(link,))
    for failure in judge(evidence(found), True, "a").failures:
        assert failure.message.isprintable()
        assert len(failure.message) < 60_000


def test_the_policy_package_imports_nothing_that_touches_the_world() -> None:
    tree = ast.parse(Path(gate.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= {"__future__", "collections.abc", "dataclasses", "enum", "re", "stat", "typing"}


def test_the_message_says_what_should_be_there_and_quotes_odd_paths() -> None:
    odd = replace(HOME.folder, path="/home/a b; rm")
    for link, expected in [
        (LINKS[-2][1], "a symlink to /shared/projects"),
        (replace(GOOD, target=Target.FILE), "a symlink to the folder /shared/projects"),
        (replace(GOOD, uid=7), f"/shared/projects owned by uid {UID}, the user that runs circusd"),
    ]:
        (failure,) = judge(evidence(replace(HOME, folder=odd, links=(link,))), True, "a").failures
        assert failure.expected == expected
        assert "home '/home/a b; rm': projects: expected" in failure.message


def test_a_failure_prints_as_its_message() -> None:
    failure = Failure(Divergence.LOOP, "a", "/h", "l", "x", "y", "z")
    assert str(failure) == "account a: home /h: l: expected x, found y; z"
