"""The large fleet that several benchmarks look at: started once, its circusd replaced as they need it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.ground import Circusd, Ground, last_started, say


class LargeFleet:
    """As many agents as one host is meant to run."""

    def __init__(self, ground: Ground, count: int) -> None:
        self.count = count
        self.circusd = Circusd(ground, "large")
        self.started = ground.started("started")
        """The folder where each agent leaves a file when it runs."""
        self.circusd.agents(count, started=self.started, check_delay=1.0)
        self._launched = False
        self._runs: tuple[Path | None, float] | None = None

    def run(self, *, times: Path | None = None, check_delay: float = 1.0) -> Circusd:
        """Have all agents up below a circusd of this kind, which adopts those that run.

        Args:
            times: where a circusd that measures its hooks writes; None for circusd as it is.
            check_delay: Circus's own, in seconds.
        """
        if self._runs == (times, check_delay):
            return self.circusd
        if self._runs is not None:
            self.end()
        say(f"circusd {'adopts' if self._launched else 'starts'} {self.count} agents")
        self.circusd.set_check_delay(check_delay)
        self.circusd.start(times=times)
        self._runs = (times, check_delay)
        if not self._launched:
            last_started(self.started, self.count)
            self._launched = True
        self.circusd.await_all()
        return self.circusd

    def end(self) -> None:
        """End circusd; the agents live on."""
        if self._runs is not None:
            self.circusd.end()
            self._runs = None
