"""Records the plans of `cases.py` from the real engine: `python -m tools.ci.recording.record [CASE ...]`.

With `--expected`, only the comments are written again from what was recorded (expected.md, expected-2.md for a second
page): look at the difference before you commit it.

Each case gets a project of its own in a scratch folder, with a copy of the provider kit and the small platform of
`example.py`. What comes out is freed of the machine's paths, of times and of ids, so that it says the same everywhere.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorafleet import comment
from lorafleet.comment.values import UNKNOWN_MARKS
from tools.ci.recording.cases import CASES, Case

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "unit" / "golden" / "comment"
HERE = Path(__file__).parent
STACK = "prod"
LOCAL_CASES = ("local-create", "local-rollout")

# Where a program's source lies says nothing about a change, and differs from machine to machine.
_DROPPED_KEYS = frozenset(
    {"sourcePosition", "stackTrace", "timestamp", "duration", "durationSeconds", "created", "modified", "__pulumi_raw"}
)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def main(names: list[str]) -> int:
    """Records the named cases, all without names."""
    only_expected = "--expected" in names
    for name in [each for each in names if each != "--expected"] or [*CASES, *LOCAL_CASES]:
        if only_expected:
            write_expected(GOLDEN / name)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            if name in CASES:
                code = record(CASES[name], GOLDEN / name, Path(scratch))
            else:
                code = record_local(name, GOLDEN / name, Path(scratch))
        write_expected(GOLDEN / name)
        print(f"{name}: exit status {code}", flush=True)
    return 0


def render(folder: Path) -> list[str]:
    """The comment on a recorded plan."""
    packed = folder / "preview.json.gz"
    preview = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / "preview.json").read_bytes()
    log = folder / "events.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else None
    links = comment.Links(run="https://github.com/example/fleet/actions/runs/1", commit="0123456789abcdef" + 24 * "0")
    return comment.pages(STACK, json.loads(preview), events, int((folder / "status.txt").read_text()), links)


def write_expected(folder: Path) -> None:
    """Writes the comment on a recorded plan beside it."""
    for former in folder.glob("expected*.md"):
        former.unlink()
    for number, page in enumerate(render(folder), start=1):
        (folder / ("expected.md" if number == 1 else f"expected-{number}.md")).write_text(page)


def record(case: Case, target: Path, scratch: Path) -> int:
    """Brings `before` up, previews `after`, writes what the engine said; returns the preview's exit status."""
    project = scratch / "project"
    environment = _lay_out(project, scratch)
    before, after = case.programs()
    _pulumi(project, environment, "stack", "init", STACK, check=True)
    program = project / "stacks" / "__main__.py"
    if before:
        program.write_text(before)
        _pulumi(project, environment, "up", "--yes", "--skip-preview", "--parallel", "1", check=True)
    platform = Path(environment["EXAMPLE_PLATFORM"])
    if case.meanwhile:
        there = json.loads(platform.read_text()) | dict(case.meanwhile)
        platform.write_text(json.dumps({key: value for key, value in there.items() if value is not None}))
    program.write_text(after)
    log = scratch / "events.jsonl"
    done = _pulumi(
        project, environment, "preview", "--json", "--event-log", str(log), "--parallel", "1", *case.arguments
    )
    _write(target, done, log, case, scratch)
    return done.returncode


def record_local(name: str, target: Path, scratch: Path) -> int:
    """Previews the stack `local` itself, with a stand-in for vLLM: its creation, or a release of one adapter."""
    from tests.support.stack_project import StackProject

    # So that the same comes out each time; nothing listens there but for the seconds of a recording.
    ports = {"server": 28101, "router": 28100, "metrics": 28102}
    project = StackProject(scratch / "project")

    def declare(fleet: dict[str, Any]) -> None:
        fleet["targets"]["server"]["port"] = ports["server"]
        fleet["router"] |= {"port": ports["router"], "metricsPort": ports["metrics"]}

    project.change(declare)
    try:
        if name != "local-create":
            project.up().ok()
            wanted = project.digests["adapters-v2", "easycontract"]
            project.change(lambda fleet: fleet["release"]["adapters"].update(easycontract=wanted))
        log = scratch / "events.jsonl"
        environment = {**project.environment, "PULUMI_DEBUG_COMMANDS": "true"}
        done = _pulumi(project.folder, environment, "preview", "--json", "--event-log", str(log), "--parallel", "1")
    finally:
        project.kill_everything()
    _write(target, done, log, Case("", ""), scratch)
    return done.returncode


def _write(target: Path, done: subprocess.CompletedProcess[str], log: Path, case: Case, scratch: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    preview = _scrubbed(json.loads(done.stdout), scratch)
    preview.pop("config", None)
    if case.packed:
        _write_packed(target / "preview.json.gz", json.dumps(preview, ensure_ascii=False).encode())
    else:
        (target / "preview.json").write_text(json.dumps(preview, indent=1, ensure_ascii=False) + "\n")
    if case.events:
        (target / "events.jsonl").write_text("".join(_events(log, scratch)))
    (target / "status.txt").write_text(f"{done.returncode}\n")


def _lay_out(project: Path, scratch: Path) -> dict[str, str]:
    (project / "stacks").mkdir(parents=True)
    shutil.copytree(ROOT / "lorafleet", project / "lorafleet", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("kit", "__init__.py", "__main__.py", "stack.py", "pulumi-resource-lorafleet"):
        source, copy = ROOT / "providers" / name, project / "providers" / name
        copy.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    for platform in ("example", "artifacts"):
        folder = project / "providers" / platform
        folder.mkdir()
        (folder / "__init__.py").touch()
        shutil.copy(HERE / f"{platform}.py", folder / "resources.py")
    (project / ".venv").symlink_to(ROOT / ".venv")
    (project / "Pulumi.yaml").write_text(
        "name: serving\nruntime: python\nmain: stacks\nstackConfigDir: stacks\n"
        "plugins: {providers: [{name: lorafleet, path: ./providers}]}\n"
    )
    (scratch / "backend").mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")}
    return {
        **kept,
        "PYTHONPATH": str(project),
        "PULUMI_HOME": str(scratch / "home"),
        "PULUMI_BACKEND_URL": f"file://{scratch / 'backend'}",
        "PULUMI_CONFIG_PASSPHRASE": "recording",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DEBUG_COMMANDS": "true",  # without it, `--event-log` is no option
        "EXAMPLE_PLATFORM": str(scratch / "platform.json"),
    }


def _pulumi(
    project: Path, environment: Mapping[str, str], *arguments: str, check: bool = False
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["pulumi", *arguments, "--non-interactive", "--color", "never"],
        cwd=project,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if check and done.returncode != 0:
        raise SystemExit(f"pulumi {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
    return done


def _events(log: Path, scratch: Path) -> list[str]:
    lines = []
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event.get("diagnosticEvent", {}).get("severity") == "debug" or "preludeEvent" in event:
            continue
        lines.append(json.dumps(_scrubbed(event, scratch), ensure_ascii=False) + "\n")
    return lines


def _scrubbed(value: Any, scratch: Path) -> Any:
    match value:
        case dict():
            return {key: _scrubbed(each, scratch) for key, each in value.items() if key not in _DROPPED_KEYS}
        case list():
            return [_scrubbed(each, scratch) for each in value]
        case str():
            for path, name in ((scratch, "/example"), (ROOT, "/example/project"), (Path.home(), "/example/home")):
                value = value.replace(str(path), name)
            return _UUID.sub(lambda found: found.group() if found.group() in UNKNOWN_MARKS else "0" * 8 + "-id", value)
    return value


def _write_packed(path: Path, content: bytes) -> None:
    # Without a time in it, the same content is the same file.
    path.write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
