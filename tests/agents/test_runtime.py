"""What holds for every runtime, through the interface that they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from circus_failover import agent_settings
from circus_failover.agents import RUNTIMES
from circus_failover.agents.runtime import Dialog, takes_id
from circus_failover.settings import Settings, Shared


@pytest.mark.parametrize(("runtime", "takes"), [("command", True), ("claude", True), ("codex", False)])
def test_who_chooses_the_id_of_a_new_conversation_shows_in_how_it_is_begun(
    tmp_path: Path, runtime: str, takes: bool
) -> None:
    using = Settings(Path("/f.yaml"), Path("/s"), Shared(), (), {})
    watcher = {"name": "bob", "cmd": "failover-session", "failover.command": "x", "failover.runtime": runtime}
    agent = agent_settings.parse({**watcher, "working_dir": str(tmp_path)}, using, "circus.ini")
    assert takes_id(RUNTIMES[runtime], agent) is takes


@pytest.mark.parametrize("dialog", [each for name in RUNTIMES for each in RUNTIMES[name].dialogs])
def test_an_answer_to_a_dialog_is_confirmed_by_its_last_key_alone(dialog: Dialog) -> None:
    """Whatever is before it only moves the cursor, which is looked at before the last key is pressed."""
    for keys in dialog.answers.values():
        assert keys and set(keys[:-1]) <= {"Up", "Down", "Tab", "Left", "Right"}
        assert keys[-1] == "Enter" or (len(keys) == 1 and keys[-1] not in ("Up", "Down"))
    assert dialog.answers or dialog.otherwise, "somebody has to be told what to do"
