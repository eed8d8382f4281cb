"""env.sh in each shell of this machine, in a checkout whose path has a space and a percent sign."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh", "busybox") if shutil.which(shell)]
SHOW = "env | grep -E '^(PATH|VIRTUAL_ENV|PULUMI_.*|PYTHONDONTWRITEBYTECODE)=' | sort"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "a b%c"
    (root / "tools" / "setup").mkdir(parents=True)
    (root / "tools" / "setup" / "__main__.py").touch()
    shutil.copy(REPOSITORY / "env.sh", root)
    return root


def run(shell: str, script: str, cwd: Path, *options: str) -> subprocess.CompletedProcess[str]:
    applet = ["sh"] if shell == "busybox" else []
    return subprocess.run(
        [shell, *applet, *options, "-c", script],
        cwd=cwd,
        env={
            "PATH": "/usr/bin:/bin:/own/bin",
            "HOME": str(cwd),
            "PULUMI_CONFIG_PASSPHRASE": "another",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def shown(output: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output.splitlines())


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("options", [(), ("-eu",)])
def test_it_sets_the_same_in_every_shell_from_any_folder(shell: str, options: tuple[str, ...], checkout: Path) -> None:
    done = run(shell, f". '{checkout}/env.sh'; {SHOW}", Path("/"), *options)
    assert (done.returncode, done.stderr) == (0, "")
    local = checkout / ".lorafleet"
    assert shown(done.stdout) == {
        "PATH": f"{checkout}/.venv/bin:/usr/bin:/bin:/own/bin:/usr/sbin",
        "PULUMI_BACKEND_URL": f"file://{str(local).replace('%', '%25').replace(' ', '%20')}/backend",
        "PULUMI_CONFIG_PASSPHRASE_FILE": f"{local}/passphrase",
        "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
        "PULUMI_HOME": f"{local}/pulumi-home",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "VIRTUAL_ENV": f"{checkout}/.venv",
    }


@pytest.mark.parametrize("shell", SHELLS)
def test_sourcing_it_twice_changes_nothing_more(shell: str, checkout: Path) -> None:
    (checkout / ".lorafleet" / "engine" / "bin").mkdir(parents=True)
    once = run(shell, f". ./env.sh; {SHOW}", checkout).stdout
    twice = run(shell, f". ./env.sh; PATH=/first:$PATH; . '{checkout}/env.sh'; {SHOW}", checkout).stdout
    ours = f"{checkout}/.venv/bin:{checkout}/.lorafleet/engine/bin"
    assert shown(once)["PATH"].startswith(f"{ours}:/usr/bin:")
    assert shown(twice)["PATH"].startswith(f"{ours}:/first:/usr/bin:")
    assert shown(twice)["PATH"].count(str(checkout)) == 2


@pytest.mark.parametrize("shell", SHELLS)
def test_it_works_in_a_command_substitution(shell: str, checkout: Path) -> None:
    done = run(shell, f'echo "$(. \'{checkout}/env.sh\' && echo "$VIRTUAL_ENV")"', Path("/"))
    assert (done.stdout, done.stderr) == (f"{checkout}/.venv\n", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_it_leaves_no_helpers_behind(shell: str, checkout: Path) -> None:
    done = run(shell, f". '{checkout}/env.sh'; set | grep '^_lorafleet' || echo none", Path("/"))
    assert done.stdout == "none\n"


def test_the_passphrase_is_random_private_and_made_once(checkout: Path) -> None:
    passphrase = checkout / ".lorafleet" / "passphrase"
    run("sh", ". ./env.sh", checkout)
    first = passphrase.read_text()
    assert len(first) == 64
    assert passphrase.stat().st_mode & 0o777 == 0o600
    assert passphrase.parent.stat().st_mode & 0o777 == 0o700
    run("sh", ". ./env.sh", checkout)
    assert passphrase.read_text() == first
    passphrase.unlink()
    run("sh", ". ./env.sh", checkout)
    assert passphrase.read_text() != first
    assert sorted(file.name for file in passphrase.parent.iterdir()) == ["backend", "passphrase", "pulumi-home"]


def test_a_new_passphrase_takes_away_the_salt_of_a_former_one(checkout: Path) -> None:
    config = checkout / "stacks" / "Pulumi.local.yaml"
    config.parent.mkdir()
    config.write_text("config:\n  a: 1\nencryptionsalt: v1:x:v1:y:z\n")
    run("sh", ". ./env.sh", checkout)
    assert config.read_text() == "config:\n  a: 1\n"
    config.write_text("config:\n  a: 1\nencryptionsalt: v1:new:v1:y:z\n")
    run("sh", ". ./env.sh", checkout)
    assert "v1:new" in config.read_text()


def test_shells_at_once_agree_on_one_passphrase(checkout: Path) -> None:
    one = '(. ./env.sh; echo "$(cat "$PULUMI_CONFIG_PASSPHRASE_FILE")") &'
    done = run("sh", f"{one * 8} wait", checkout)
    assert len(done.stdout.split()) == 8
    assert len(set(done.stdout.split())) == 1
