"""Start the canary of a state directory; it detaches itself, and does nothing where one runs already.

Who starts it does not wait for what it does, and nothing depends on its start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from circus_failover.canary.environment import kept

PROCESS = Path(__file__).with_name("process.py")
PATIENCE_SECS = 10.0


def start(state_dir: str) -> None:
    """Start the canary, and return when it is detached; with one running already nothing happens.

    Args:
        state_dir: the state directory, prepared.

    Raises:
        OSError: it could not be started; the text says why.
    """
    try:
        done = subprocess.run(
            _command(state_dir),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=kept(os.environ),
            cwd="/",
            timeout=PATIENCE_SECS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"the canary did not detach itself within {PATIENCE_SECS:g} s") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise OSError(f"the canary ended with {done.returncode}: {said[-1] if said else 'it said nothing'}")


def begin(state_dir: str) -> None:
    """Start the canary and do not wait: for circusd's loop, which reaps its children by itself.

    Args:
        state_dir: the state directory, prepared.

    Raises:
        OSError: it could not be started.
    """
    process = subprocess.Popen(
        _command(state_dir),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=kept(os.environ),
        cwd="/",
    )
    process.returncode = 0


def _command(state_dir: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(PROCESS), os.path.abspath(state_dir)]
