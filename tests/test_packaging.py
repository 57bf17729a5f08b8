"""What is installed: the project's own packages and two commands, from any directory, and nothing else."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "circus_failover",
    "circus_failover/agents",
    "circus_failover/canary",
    "circus_failover/init",
    "circus_failover/plugins",
    "circus_failover/policy",
    "circus_failover/verbs",
    "circus_failover/web",
    "circusweb",
}
STATIC = "circus_failover/web/static"


@dataclass(frozen=True)
class Installed:
    """A wheel made from a clean copy of the tree, and an environment of its own that holds it."""

    wheel: Path
    bin: Path
    elsewhere: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of that environment, from a directory that is not the project's."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "FAILOVER_", "VIRTUAL_ENV"))
        }
        environment["PATH"] = f"{self.bin}{os.pathsep}{os.defpath}"
        return subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            env=environment,
            cwd=self.elsewhere,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def names(self) -> list[str]:
        """Return what the wheel holds."""
        with zipfile.ZipFile(self.wheel) as archive:
            return archive.namelist()


def clean_copy(folder: Path) -> None:
    """Copy what belongs to the project, as git lists it: no build/, no cache, nothing that is ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in os.fsdecode(listed.stdout).split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built and installed without a network: the dependencies are those of the tests' own environment."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a git work tree")
    folder = tmp_path_factory.mktemp("packaging")
    source, dist = folder / "source", folder / "dist"
    clean_copy(source)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(source)],
        check=True,
        capture_output=True,
        text=True,
    )
    (wheel,) = dist.glob("*.whl")
    home = folder / "env"
    venv.create(home, with_pip=False, symlinks=True)
    paths = {name: str(home) for name in ("base", "platbase")}
    library = Path(
        sysconfig.get_path(
            "purelib", "venv" if sys.version_info >= (3, 11) else sysconfig.get_default_scheme(), paths
        )
    )
    # Behind the new environment's own folder, and without the editable install that the tests run from.
    dependencies = sysconfig.get_path("purelib")
    (library / "dependencies.pth").write_text(f"import sys; sys.path.append({dependencies!r})\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet",
         "--no-deps", "--no-index", "--disable-pip-version-check", "--ignore-installed", str(wheel)],
        check=True,
        capture_output=True,
        text=True,
    )  # fmt: skip
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return Installed(wheel, home / "bin", elsewhere)


def test_the_wheel_holds_the_packages_and_nothing_else(installed: Installed) -> None:
    names = installed.names()
    info = {name for name in names if ".dist-info/" in name}
    scripts = {name for name in names if ".data/scripts/" in name}
    pages = {name for name in names if name.startswith(f"{STATIC}/")}
    code = set(names) - info - scripts - pages
    assert {os.path.dirname(name) for name in code} == PACKAGES
    assert {Path(name).suffix for name in code} <= {".py", ".typed", ".service"}
    assert not [name for name in names if "test" in name.lower()]
    assert {Path(name).name for name in scripts} == {"failover-session", "failover-event"}


def test_every_module_of_the_tree_is_in_the_wheel(installed: Installed) -> None:
    tree = {
        f"circus_failover/{path.relative_to(ROOT / 'circus_failover')}"
        for path in (ROOT / "circus_failover").rglob("*.py")
    } | {
        f"circus_failover/plugins/{path.relative_to(ROOT / 'plugins')}"
        for path in (ROOT / "plugins").rglob("*.py")
    }
    assert tree <= set(installed.names())
    data = {f"circus_failover/{path.name}" for path in (ROOT / "circus_failover").glob("*.service")}
    data |= {str(path.relative_to(ROOT)) for path in (ROOT / STATIC).rglob("*") if path.is_file()}
    data |= {"circusweb/__init__.py", "circusweb/circushttpd.py"}
    assert data | {"circus_failover/py.typed"} <= set(installed.names())


def test_it_imports_from_anywhere_and_from_the_installed_copy(installed: Installed) -> None:
    done = installed.run(
        "python", "-c",
        "import circus_failover, circus_failover.hooks, circus_failover.plugins, circus_failover.verbs.local;"
        "print(circus_failover.__file__, circus_failover.plugins.__file__)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    home = str(installed.bin.parent)
    assert all(path.startswith(home) for path in done.stdout.split())


def test_failoverctl_runs_from_anywhere(installed: Installed) -> None:
    done = installed.run("failoverctl", "--version")
    assert (done.returncode, done.stdout) == (0, f"failoverctl {version()}\n"), done.stderr


def test_circusd_finds_the_console_that_httpd_starts(installed: Installed) -> None:
    code = "from circusweb import circushttpd; print(circushttpd.main.__module__)"
    done = installed.run("python", "-c", code)
    assert (done.returncode, done.stdout) == (0, "circus_failover.web.server\n"), done.stderr


def test_the_libraries_of_the_pages_are_those_of_their_packages_with_their_licences() -> None:
    done = subprocess.run([str(ROOT / "scripts/vendor"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = json.loads((ROOT / STATIC / "vendor/packages.json").read_text())["packages"]
    for package in listed:
        assert package["license"] in ("MIT", "Apache-2.0", "ISC")
        assert any(file.endswith(".LICENSE") for file in package["files"]), package["name"]


def test_the_keeper_is_an_executable_shell_script_that_says_what_it_is(installed: Installed) -> None:
    keeper = installed.bin / "failover-session"
    assert os.access(keeper, os.X_OK)
    assert keeper.read_bytes().startswith(b"#!/bin/sh\n")
    done = installed.run("failover-session")
    assert done.returncode == 2
    assert "Circus watcher" in done.stderr


def test_the_reporter_says_nothing_and_succeeds_and_is_found_by_the_verb(installed: Installed) -> None:
    done = installed.run("failover-event", "Stop")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    home = installed.elsewhere / "home"
    home.mkdir()
    done = installed.run(
        "failoverctl", "hooks", "install", "--home", str(home), "--runtime", "claude", "--yes"
    )
    assert done.returncode == 0, done.stderr
    assert f"[ -x {installed.bin}/failover-event ] && " in (home / "settings.json").read_text()


def test_the_metadata_is_what_pip_shall_show(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
        (entries,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert archive.read(entries).decode().split() == [
            "[console_scripts]",
            "failover-web", "=", "circus_failover.web.server:main",
            "failoverctl", "=", "circus_failover.failoverctl:main",
        ]  # fmt: skip
    assert metadata["Name"] == "circus-failover"
    assert metadata["Version"] == version()
    assert metadata["Requires-Python"] == ">=3.10"
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or [])
    # What Circus's `httpd = True` wants is asked for by this name, and needs nothing more than circusd does.
    assert "web" in (metadata.get_all("Provides-Extra") or [])
    needs = [need for need in metadata.get_all("Requires-Dist") or [] if "extra ==" not in need]
    assert {re.split("[<>=!~]", need)[0].lower() for need in needs} == {
        "circus", "pyzmq", "tornado", "psutil", "pydantic", "pyyaml", "rich", "tomli",
        "apprise", "prometheus-client",
    }  # fmt: skip


def test_the_environment_of_the_tests_has_both_commands() -> None:
    for name in ("failoverctl", "failover-web", "failover-session", "failover-event"):
        assert os.access(Path(sys.executable).parent / name, os.X_OK), f"{name}: run scripts/setup"


def version() -> str:
    """Return the version that the code says."""
    import circus_failover

    return circus_failover.__version__
