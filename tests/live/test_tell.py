"""`tell`: a word to the launch that runs now arrives, or the answer says why not and it never comes late."""

from __future__ import annotations

import json
import subprocess

from circus_failover import tmux
from tests.live.fleet import BIN, Fleet, wait_for


def told(fleet: Fleet) -> list[str]:
    return fleet.prompts(fleet.launches("bob")[0].conversation)


def test_what_is_told_arrives_whole_or_is_refused_and_never_typed_into_a_later_launch(fleet: Fleet) -> None:
    fleet.resumable("bob")
    fleet.start()
    fleet.await_up("bob")
    # It arrives: a line, many lines, a mebibyte.
    assert fleet.ctl("tell", "bob", "mind the 'gap' $(id); \\n").code == 0
    large = fleet.folder / "large"
    large.write_text("line of text\n" * 80_000 + "\ttwo\n\nend")
    done = fleet.ctl("--json", "tell", "bob", "--file", str(large))
    assert (done.code, json.loads(done.out)["agents"][0]["ok"]) == (0, True)
    assert told(fleet) == ["mind the 'gap' $(id); \\n", large.read_text()]
    # What would press keys, or is nothing, is refused before it is stored.
    for hostile, why in {"\x1b[201~rm -rf /": "ESC", "a\x03b": "U+0003", " \n\t ": "empty"}.items():
        refused = fleet.ctl("tell", "bob", hostile)
        assert refused.code == 2 and why in refused.err, refused
    assert fleet.ctl("tell", "bob", "not", "quoted").code == 2
    assert "more than 4 seconds" in fleet.ctl("tell", "bob", "hurry", "--timeout", "3").err
    # It is busy and shows nothing of what is typed: not in time is never.
    fleet.type("bob", "/work 600 long")
    fleet.await_screen("bob", "working")
    late = fleet.ctl("tell", "bob", "too late", "--timeout", "7")
    assert late.code == 3 and "the text did not show on the screen" in late.err, late
    assert fleet.call("tasks")["tasks"] == []
    # It is ended while somebody waits to be heard.
    waiting = subprocess.Popen(
        [str(BIN / "failoverctl"), "tell", "bob", "going?"],
        env=fleet.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for("it is queued", lambda: fleet.call("tasks")["tasks"])
    assert fleet.ctl("park", "bob", "--waiting").code == 0
    _, why = waiting.communicate(timeout=30)
    assert waiting.returncode == 3 and ("being ended" in why or "not up" in why), why
    gone = fleet.ctl("tell", "bob", "anybody there?")
    assert gone.code == 3 and "not told: it is not up but parked" in gone.err
    # The next launch hears nothing of all that.
    assert fleet.ctl("wake", "bob").code == 0
    fleet.await_screen("bob", "❯")
    assert fleet.ctl("tell", "bob", "good morning").code == 0
    assert told(fleet)[3:] == ["good morning"]
    assert "anybody" not in fleet.screen("bob") and "going?" not in fleet.screen("bob")
    assert tmux.run(fleet.socket("bob"), ["list-buffers"]) == ""
