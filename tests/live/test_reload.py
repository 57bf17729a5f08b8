"""What Circus calls a reload, and what it calls a changed configuration, end no agent and start none."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from circus_failover import process_table
from tests import proc
from tests.live.fleet import Fleet, alive, wait_for


def keepers(fleet: Fleet, name: str) -> list[int]:
    """Return the keepers of an agent that run, whatever Circus thinks of them."""
    waits, ours = f"wait-for\0failover-{name}-".encode(), f"{fleet.folder}/".encode()
    lines = {int(pid): proc.command_line(int(pid)) for pid in os.listdir("/proc") if pid.isdigit()}
    return [pid for pid, line in lines.items() if waits in line and ours in line]


def settled(fleet: Fleet, *were: dict[str, Any], ticks: int = 2) -> None:
    """Wait until agents have exactly one keeper each, Circus's own; assert that they are the same agents."""
    names = [str(was["identity"]) for was in were]

    def one_keeper(name: str) -> bool:
        pids = fleet.call("list", name=name)["pids"]
        return len(pids) == 1 and keepers(fleet, name) == pids

    for name in names:
        wait_for(f"one keeper of {name}", lambda name=name: one_keeper(name))
    fleet.await_ticks(ticks)
    for was, now in zip(were, fleet.await_up(*names), strict=True):
        # Whoever was asked without waiting may be at the next keeper by now.
        wait_for("one keeper, still", lambda name=str(was["identity"]): one_keeper(name))
        assert alive(was["pid"])
        assert (now["pid"], now["generation"]) == (was["pid"], was["generation"])


def reload_all(fleet: Fleet) -> None:
    assert fleet.ctl("reload", "--waiting").code == 0


def reload_plainly(fleet: Fleet) -> None:
    assert fleet.ctl("reload", program="circusctl").code == 0


def hang_up(fleet: Fleet) -> None:
    assert fleet.circusd is not None
    fleet.circusd.send_signal(signal.SIGHUP)


def reload_one(fleet: Fleet) -> None:
    for name in ("alpha", "down", "stopped"):
        assert fleet.ctl("reload", name, "--waiting").code == 0


def reload_terminating(fleet: Fleet) -> None:
    assert fleet.ctl("reload", "--terminate", "--waiting").code == 0


def reload_one_terminating(fleet: Fleet) -> None:
    assert fleet.ctl("reload", "alpha", "--terminate", "--waiting").code == 0


def reload_one_by_one(fleet: Fleet) -> None:
    assert fleet.ctl("reload", "--sequential", "--waiting").code == 0


def kill(fleet: Fleet) -> None:
    assert fleet.ctl("kill", "alpha").code == 0


def kill_recursively(fleet: Fleet) -> None:
    assert fleet.ctl("signal", "alpha", "KILL", "--recursive").code == 0


def signal_9(fleet: Fleet) -> None:
    assert fleet.ctl("signal", "alpha", "9", program="circusctl").code == 0


def signal_term(fleet: Fleet) -> None:
    assert fleet.ctl("signal", "alpha", "TERM").code == 0


RELOADS: tuple[Callable[[Fleet], None], ...] = (
    *(reload_all, reload_plainly, hang_up, reload_one, reload_terminating, reload_one_terminating),
    *(reload_one_by_one, kill, kill_recursively, signal_9, signal_term),
)


def test_a_live_agent_is_kept_and_nothing_that_was_down_starts(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.agent("manual", autostart="False")
    fleet.agent("never", autostart="False")
    fleet.agent("down", failover__restart="always")
    fleet.agent("stopped")
    fleet.start()
    down, _ = fleet.await_up("down", "stopped")
    assert fleet.ctl("start", "manual").code == 0
    alpha, manual = fleet.await_up("alpha", "manual")
    assert fleet.ctl("stop", "stopped", "--waiting").code == 0
    os.kill(down["pid"], signal.SIGKILL)
    fleet.await_phase("down", "down")
    fleet.await_watcher("down", "stopped")
    for reload in RELOADS:
        keeper = fleet.keeper("alpha")
        reload(fleet)
        wait_for(
            f"another keeper after {reload.__name__}",
            lambda keeper=keeper: fleet.call("list", name="alpha")["pids"] not in ([], [keeper]),
        )
        # What would start later than that is found at the end, in the log.
        settled(fleet, alpha, manual, ticks=1)
        phases = {agent["identity"]: agent["phase"] for agent in fleet.call("fleet")["agents"]}
        expected = {"alpha": "up", "manual": "up", "never": "down", "down": "down", "stopped": "stopped"}
        assert phases == expected, reload.__name__
    fleet.await_ticks()
    launches = [record["identity"] for record in fleet.lifecycle() if record["ev"] == "launch"]
    assert sorted(launches) == ["alpha", "down", "manual", "stopped"]


def test_max_age_replaces_the_keeper_alone(fleet: Fleet) -> None:
    fleet.agent("alpha", max_age="1", max_age_variance="0")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    keepers_seen: set[int] = set()
    wait_for("two more keepers", lambda: keepers_seen.add(fleet.keeper("alpha")) or len(keepers_seen) > 2)
    (now,) = fleet.await_up("alpha")
    assert (now["pid"], now["generation"]) == (was["pid"], 1)
    wait_for("no more than one keeper", lambda: len(keepers(fleet, "alpha")) <= 1)


def test_rm_nostop_takes_the_watcher_away_and_leaves_the_agent(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    assert fleet.ctl("rm", "alpha", "--nostop", "--waiting").code == 0
    assert alive(was["pid"])
    assert "alpha" not in fleet.call("list")["watchers"]
    assert fleet.call("fleet")["agents"] == []
    wait_for("the keeper is gone", lambda: not keepers(fleet, "alpha"))
    fleet.await_ticks()
    assert alive(was["pid"])
    assert fleet.ctl("reloadconfig").code == 0
    settled(fleet, was)


def test_rm_ends_the_agent_and_a_later_section_starts_it_anew(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.agent("beta")
    fleet.start()
    was, beta = fleet.await_up("alpha", "beta")
    assert fleet.ctl("rm", "alpha", "--waiting").code == 0
    assert not alive(was["pid"])
    assert [agent["identity"] for agent in fleet.call("fleet")["agents"]] == ["beta"]
    assert fleet.ctl("reloadconfig").code == 0
    settled(fleet, beta)


def test_an_agent_has_one_process_whatever_is_asked_for(fleet: Fleet) -> None:
    fleet.agent("alpha")
    fleet.watcher("plain", "sleep 3600")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    for arguments in (
        ("incr", "alpha"),
        ("incr", "alpha", "2"),
        ("decr", "alpha"),
        ("set", "alpha", "numprocesses", "2"),
        ("set", "alpha", "numprocesses", "0"),
        ("set", "alpha", "uid", "65534"),
    ):
        for program in ("failoverctl", "circusctl"):
            refused = fleet.ctl(*arguments, program=program)
            assert refused.code == 3, (arguments, refused)
            assert "exactly one process" in refused.out + refused.err
    settled(fleet, was)
    assert fleet.ctl("incr", "plain").code == 0
    wait_for("two plain processes", lambda: len(fleet.call("list", name="plain")["pids"]) == 2)
    assert fleet.ctl("set", "plain", "numprocesses", "1").code == 0


def test_set_takes_no_gate_away_and_does_not_load_it_again(fleet: Fleet) -> None:
    """Circus reloads the module of a hook that is set (0.19): a second gate beside the first one."""
    fleet.agent("alpha")
    fleet.agent("beta", autostart="False", failover__account="nobody")
    fleet.watcher("plain", "sleep 3600")
    fleet.start()
    (was,) = fleet.await_up("alpha")
    for hook, value in (
        ("before_start", "circus_failover.hooks.enrol"),
        ("before_start", "os.path.exists"),
        ("before_spawn", "os.path.exists"),
        ("before_stop", "os.path.exists"),
    ):
        for program, *arguments in (
            ("failoverctl", f"hooks.{hook}", value),
            ("circusctl", "hooks", f"{hook}:{value}"),
        ):
            refused = fleet.ctl("set", "beta", *arguments, program=program)
            assert refused.code == 3, (arguments, refused)
            assert "hooks" in refused.out + refused.err
    assert fleet.ctl("start", "beta").code == 3
    assert fleet.call("list", name="beta")["pids"] == []
    assert fleet.ctl("set", "plain", "hooks.before_start", "os.path.exists").code == 0
    for program in ("failoverctl", "circusctl"):
        assert fleet.ctl("set", "alpha", "graceful_timeout", "7", program=program).code == 0
    settled(fleet, was)
    assert fleet.ctl("stop", "alpha", "--waiting").code == 0
    assert fleet.view("alpha")["phase"] == "stopped"


class TestReloadconfig:
    """`reloadconfig` applies, detaches and adopts; it never ends an agent."""

    def test_failover_options_are_applied_in_place(self, fleet: Fleet) -> None:
        fleet.agent("alpha", failover__stop_secs="60", failover__command="")
        stubborn = "/bin/sh -c 'trap : TERM HUP; while :; do sleep 0.1; done'"
        fleet.sections["watcher:alpha"]["failover.command"] = stubborn
        fleet.start()
        (was,) = fleet.await_up("alpha")
        keeper = fleet.keeper("alpha")
        fleet.sections["watcher:alpha"]["failover.stop_secs"] = "0.5"
        fleet.sections["watcher:alpha"]["failover.pool"] = "blue"
        del fleet.sections["watcher:alpha"]["failover.ready_secs"]
        fleet.write()
        answer = fleet.call("reloadconfig")
        assert answer["changed"] == ["alpha"]
        assert fleet.keeper("alpha") == keeper
        assert alive(keeper)
        view = fleet.view("alpha")
        assert (view["pid"], view["pool"]) == (was["pid"], "blue")
        assert fleet.call("explain", name="alpha")["settings"]["stop_secs"] == 0.5
        options = fleet.call("options", name="alpha")["options"]
        assert options["failover.pool"] == "blue"
        assert "failover.ready_secs" not in options

        # A second reload finds nothing to do, and taking an option away works as well.
        assert fleet.call("reloadconfig")["changed"] == []
        del fleet.sections["watcher:alpha"]["failover.pool"]
        fleet.write()
        assert fleet.call("reloadconfig")["changed"] == ["alpha"]
        assert (fleet.view("alpha")["pool"], fleet.keeper("alpha")) == (None, keeper)

        stopped = fleet.ctl("stop", "alpha", "--waiting", timeout=20)
        assert stopped.code == 0
        (end,) = [record for record in fleet.lifecycle() if record["ev"] == "stopped"]
        assert float(end["secs"]) < 60

    @pytest.mark.parametrize(
        ("option", "value", "autostart"), [("graceful_timeout", "7", "False"), ("env.COLOUR", "red", "True")]
    )
    def test_another_change_detaches_and_adopts_the_same_agent(
        self, fleet: Fleet, option: str, value: str, autostart: str
    ) -> None:
        fleet.agent("alpha", autostart=autostart)
        if option.startswith("env."):
            fleet.sections["env:alpha"] = {"COLOUR": "blue"}
        fleet.start()
        assert fleet.ctl("start", "alpha").code == 0
        (was,) = fleet.await_up("alpha")
        keeper = fleet.keeper("alpha")
        if option.startswith("env."):
            fleet.sections["env:alpha"]["COLOUR"] = value
        else:
            fleet.sections["watcher:alpha"][option] = value
        fleet.write()
        assert fleet.ctl("reloadconfig").code == 0
        settled(fleet, was)
        assert fleet.keeper("alpha") != keeper

        # The next launch has the new value, and nothing is taken for a change that is none.
        kept = fleet.keeper("alpha")
        assert fleet.ctl("reloadconfig").code == 0
        fleet.await_ticks()
        assert fleet.keeper("alpha") == kept
        if option.startswith("env."):
            assert fleet.ctl("restart", "alpha").code == 0
            (now,) = fleet.await_up("alpha")
            # The shell that becomes the agent has the agent's pid, and none of its variables yet.
            pid = now["pid"]
            wait_for("it is red", lambda: b"COLOUR=red" in (process_table.environ(pid) or frozenset()))

    def test_a_new_section_starts_and_a_vanished_one_leaves_its_agent_alive(self, fleet: Fleet) -> None:
        fleet.agent("alpha")
        fleet.start()
        (alpha,) = fleet.await_up("alpha")
        fleet.agent("beta")
        fleet.agent("gamma", autostart="False")
        fleet.write()
        assert fleet.ctl("reloadconfig").code == 0
        (beta,) = fleet.await_up("beta")
        assert fleet.view("gamma")["phase"] == "down"
        settled(fleet, alpha)

        del fleet.sections["watcher:alpha"]
        fleet.write()
        answer = fleet.ctl("reloadconfig")
        assert answer.code == 0
        assert "alpha" in answer.out
        assert "live on" in answer.out
        wait_for("its keeper is gone", lambda: not keepers(fleet, "alpha"))
        fleet.await_ticks()
        assert alive(alpha["pid"])
        assert [agent["identity"] for agent in fleet.call("fleet")["agents"]] == ["beta", "gamma"]
        with fleet.store() as store:
            assert store.agents()["alpha"].declared is False
        assert any(r["ev"] == "detach" and r["identity"] == "alpha" for r in fleet.lifecycle())

        # Coming back, it is the same agent; also a circusd that starts meanwhile leaves it alone.
        fleet.end(signal.SIGKILL)
        fleet.start()
        fleet.await_up("beta")
        assert alive(alpha["pid"])
        fleet.agent("alpha")
        fleet.write()
        assert fleet.ctl("reloadconfig").code == 0
        settled(fleet, alpha, beta)

    def test_a_section_that_loses_its_hook_is_no_agent_any_more_and_its_agent_lives(
        self, fleet: Fleet
    ) -> None:
        fleet.agent("alpha")
        fleet.agent("beta")
        fleet.start()
        was = fleet.await_up("alpha", "beta")
        sections = dict(fleet.sections)
        fleet.watcher("alpha", "sleep 3600")
        fleet.sections["watcher:beta"] = {
            key: value for key, value in sections["watcher:beta"].items() if key != "hooks.before_start"
        }
        fleet.write()
        assert sorted(fleet.call("reloadconfig")["detached"]) == ["alpha", "beta"]
        assert fleet.call("fleet")["agents"] == []
        assert fleet.call("stop", name="alpha", waiting=True)["status"] == "ok"
        assert all(alive(view["pid"]) for view in was)
        fleet.sections = sections
        fleet.write()
        assert fleet.call("reloadconfig")["status"] == "ok"
        settled(fleet, *was, ticks=1)

    def test_a_mistyped_include_dir_ends_no_agent(self, fleet: Fleet) -> None:
        agents = fleet.folder / "agents.d"
        agents.mkdir()
        # Circus stops them one by one, 0.1 s each (0.19): long enough for a tick to fall in between.
        names = [f"agent{number}" for number in range(12)]
        for name in names:
            fleet.agent(name)
        fleet.write()
        for name in names:
            section = fleet.sections.pop(f"watcher:{name}")
            lines = [f"[watcher:{name}]", *(f"{key} = {value}" for key, value in section.items())]
            (agents / f"{name}.ini").write_text("\n".join(lines) + "\n")
        plain = fleet.write
        named = "agents.d"

        def write() -> None:
            plain()
            text = fleet.ini.read_text()
            fleet.ini.write_text(text.replace("[circus]\n", f"[circus]\ninclude_dir = {named}\n"))

        fleet.write = write  # type: ignore[method-assign]
        fleet.start()
        views = fleet.await_up(*names)

        named = "agent.d"
        write()
        answer = fleet.ctl("reloadconfig")
        assert answer.code == 0
        for name in names:
            assert name in answer.out
        fleet.await_ticks()
        assert all(alive(view["pid"]) for view in views)
        assert fleet.call("fleet")["agents"] == []

        assert not any(keepers(fleet, name) for name in names)

        named = "agents.d"
        write()
        assert fleet.ctl("reloadconfig").code == 0
        settled(fleet, *views)

    @pytest.mark.parametrize("text", ["[circus\nendpoint", "[watcher:alpha]\nnumprocesses = many\n"])
    def test_a_file_that_cannot_be_read_changes_nothing(self, fleet: Fleet, text: str) -> None:
        fleet.agent("alpha")
        fleet.start()
        (was,) = fleet.await_up("alpha")
        keeper = fleet.keeper("alpha")
        fleet.ini.write_text(text)
        for program in ("failoverctl", "circusctl"):
            failed = fleet.ctl("reloadconfig", program=program)
            assert failed.code == 3, failed
            assert str(fleet.ini) in failed.out + failed.err
        assert fleet.keeper("alpha") == keeper
        settled(fleet, was)
        assert fleet.view("alpha")["reason"] is None

    def test_a_mistake_in_a_live_agents_section_is_shown_and_the_agent_is_kept(self, fleet: Fleet) -> None:
        fleet.agent("alpha")
        fleet.start()
        (was,) = fleet.await_up("alpha")
        fleet.sections["watcher:alpha"]["failover.restrat"] = "lazy"
        fleet.write()
        assert fleet.ctl("reloadconfig").code == 0
        settled(fleet, was)
        now = fleet.view(str(was["identity"]))
        assert "failover.restrat" in (now["reason"] or "")
        del fleet.sections["watcher:alpha"]["failover.restrat"]
        fleet.write()
        assert fleet.ctl("reloadconfig").code == 0
        settled(fleet, was)
        assert fleet.view("alpha")["reason"] is None

    def test_a_changed_option_starts_no_agent_that_was_down(self, fleet: Fleet) -> None:
        for name in ("down", "stopped"):
            fleet.agent(name)
        fleet.start()
        (down, _) = fleet.await_up("down", "stopped")
        assert fleet.ctl("stop", "stopped", "--waiting").code == 0
        os.kill(down["pid"], signal.SIGKILL)
        fleet.await_phase("down", "down")
        wait_for("how it ended is known", lambda: fleet.view("down")["cause"] == "signaled")
        for name in ("down", "stopped"):
            fleet.sections[f"watcher:{name}"]["graceful_timeout"] = "7"
        fleet.write()
        assert fleet.ctl("reloadconfig").code == 0
        fleet.await_ticks()
        assert fleet.view("down")["phase"] == "down"
        assert fleet.view("stopped")["phase"] == "stopped"
        assert fleet.ctl("start", "down").code == 0
        assert fleet.view("down")["generation"] == 2

    def test_a_repaired_section_starts_its_refused_agent(self, fleet: Fleet) -> None:
        fleet.agent("alpha", failover__restrat="lazy")
        fleet.start()
        fleet.await_phase("alpha", "refused")
        del fleet.sections["watcher:alpha"]["failover.restrat"]
        fleet.write()
        assert fleet.ctl("reloadconfig").code == 0
        assert fleet.ctl("start", "alpha").code == 0
        fleet.await_up("alpha")

    def test_numprocesses_is_refused_here_as_well(self, fleet: Fleet) -> None:
        fleet.agent("alpha")
        fleet.start()
        (was,) = fleet.await_up("alpha")
        fleet.sections["watcher:alpha"]["numprocesses"] = "2"
        fleet.write()
        assert fleet.ctl("reloadconfig").code == 0
        settled(fleet, was)
        now = fleet.view(str(was["identity"]))
        assert "numprocesses" in (now["reason"] or "")
        assert fleet.ctl("restart", "alpha").code == 3
        assert "numprocesses" in fleet.view("alpha")["reason"]

    @pytest.mark.parametrize("autostart", ["True", "False"])
    def test_the_first_agent_of_a_running_circusd_is_served_too(self, fleet: Fleet, autostart: str) -> None:
        fleet.watcher("plain", "sleep 3600")
        fleet.start()
        fleet.agent("alpha", autostart=autostart)
        fleet.write()
        assert fleet.ctl("reloadconfig").code == 0
        if autostart == "False":
            wait_for("the agent is known", lambda: fleet.view("alpha")["phase"] == "down")
            assert fleet.ctl("start", "alpha").code == 0
        (was,) = fleet.await_up("alpha")
        assert fleet.ctl("explain", "alpha").code == 0
        assert (fleet.state / "arbiter.lock").exists()
        assert fleet.ctl("reload", "--waiting").code == 0
        settled(fleet, was)
        assert fleet.ctl("stop", "alpha", "--waiting").code == 0
        assert not alive(was["pid"])
        assert fleet.view("alpha")["phase"] == "stopped"

    def test_a_change_of_circusds_own_section_restarts_it_inside_and_keeps_the_agents(
        self, fleet: Fleet
    ) -> None:
        fleet.agent("alpha")
        fleet.agent("manual", autostart="False")
        fleet.start()
        assert fleet.ctl("start", "manual").code == 0
        before = fleet.await_up("alpha", "manual")
        held = {was["identity"]: fleet.keeper(was["identity"]) for was in before}
        text = fleet.ini.read_text()
        fleet.ini.write_text(text.replace("check_delay = 0.5", "check_delay = 0.4"))
        fleet.ctl("reloadconfig")

        def again(name: str) -> bool:
            pids = fleet.call("list", timeout=1.0, name=name).get("pids")
            return pids not in (None, [], [held[name]])

        for was in before:
            wait_for("it has begun anew", lambda name=was["identity"]: again(name))
        settled(fleet, *before)
        assert fleet.circusd is not None
        assert fleet.circusd.poll() is None
        assert fleet.ctl("stop", "alpha", "--waiting").code == 0
        assert not alive(before[0]["pid"])
