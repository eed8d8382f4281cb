"""Two environments for the tests of releases, copies of stacks/Pulumi.local.yaml, and what `up` does to a store."""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import json
from pathlib import Path
from typing import Any

from lorafleet import manifest as manifests
from lorafleet.cli import main
from lorafleet.declaration import Fleet
from lorafleet.load import load_stack
from lorafleet.release import pins
from providers.artifacts import layout
from providers.artifacts.fetch import parse_origin
from providers.artifacts.push import push
from providers.artifacts.release_record import record
from providers.artifacts.rules import rules_of
from providers.artifacts.store import Store, open_store

ROOT = Path(__file__).resolve().parents[2]
DIGESTS = json.loads((ROOT / "demo" / "digests.json").read_text())
V1: dict[str, str] = DIGESTS["adapters"]
V2: dict[str, str] = DIGESTS["adapters-v2"]
PORTS = {"8100": "8200", "8101": "8201", "8102": "8202"}


class Releases:
    """A project with the environments `local` and `second`, which share a store unless a test says otherwise."""

    def __init__(self, root: Path, store: str = "file://.lorafleet/store") -> None:
        self.root = root
        if (root / "stacks").is_dir():  # a copy of one that was made before
            return
        (root / "stacks").mkdir(parents=True)
        (root / "demo").symlink_to(ROOT / "demo")
        self.file("local").write_text(local_file(store))
        text = local_file(store)
        for old, new in PORTS.items():
            text = text.replace(f"ort: {old}", f"ort: {new}")
        self.file("second").write_text(text)

    def file(self, environment: str) -> Path:
        return self.root / "stacks" / f"Pulumi.{environment}.yaml"

    def text(self, environment: str) -> str:
        return self.file(environment).read_bytes().decode()

    def replace(self, environment: str, old: str, new: str) -> None:
        text = self.text(environment)
        assert old in text, f"the stack file has no {old!r}"
        self.file(environment).write_bytes(text.replace(old, new).encode())

    def pin(self, environment: str, **digests: str) -> None:
        """Pins other digests, as a person with an editor does."""
        now = self.fleet(environment).release.adapters
        for name, digest in digests.items():
            self.replace(environment, f"{name}: {now[name]}", f"{name}: {digest}")

    def fleet(self, environment: str) -> Fleet:
        return load_stack(self.root, environment)

    def store(self, environment: str = "local") -> Store:
        return open_store(self.fleet(environment).store_url)

    def push(self, environment: str = "local", *, version: int = 1, name: str | None = None) -> None:
        """Puts the demo's adapters (or one of them) into an environment's store."""
        folder = "adapters" if version == 1 else "adapters-v2"
        fleet = self.fleet(environment)
        store = open_store(fleet.store_url)
        for each in [name] if name else V1:
            origin = parse_origin(str(ROOT / "demo" / folder / each), self.root)
            push(store, origin, each, rules_of(fleet, store), note=f"version {version}")

    def up(self, environment: str, *, served: bool = True) -> None:
        """What `pulumi up` and healthy servers leave in the store."""
        fleet = self.fleet(environment)
        store, release = open_store(fleet.store_url), pins.of(fleet.release)
        base = {"name": fleet.base_model.name, "source": fleet.base_model.source.absolute(self.root)}
        canaries = {name: (canary.digest, canary.weight) for name, canary in fleet.release.canaries.items()}
        document = manifests.document(
            store=fleet.store_url,
            base_model=base | release["baseModel"],
            adapters=fleet.release.adapters,
            canaries=canaries,
            elsewhere={
                name: (adapter.source.absolute(self.root), adapter.revision)
                for name, adapter in fleet.adapters.items()
                if adapter.source
            },
        )
        store.write(layout.manifest(environment), json.dumps(document).encode())
        if served:
            for name, digest in fleet.release.adapters.items():
                self.mark_served(environment, name, digest)
            self.status(environment, document)
        record(store, environment, release, manifests.digest_of(document))

    def mark_served(self, environment: str, name: str, digest: str) -> None:
        mark = {"version": 1, "name": name, "digest": digest, "target": "server", "replica": "0", "at": _now()}
        self.store(environment).write(layout.served(environment, name, digest), json.dumps(mark).encode())

    def status(self, environment: str, manifest: dict[str, Any], **other: Any) -> None:
        """A server's status, as docs/architecture.md has it."""
        digest = manifests.digest_of(manifest)
        adapters = [
            {
                "name": entry["name"],
                "servedName": f"{entry['name']}@{entry['digest'].replace(':', '-')[:23]}",
                "digest": entry["digest"],
                "wanted": entry["digest"],
                "canary": None,
                "state": "serving",
                "since": _now(),
                "error": None,
            }
            for entry in manifest["adapters"]
        ]
        document = {
            "version": 2,
            "phase": "ready",
            "detail": "",
            "error": None,
            "updatedAt": _now(),
            "heartbeatS": 3600,
            "environment": environment,
            "target": "server",
            "replica": "0",
            "baseModel": {key: manifest["baseModel"].get(key) for key in ("name", "revision", "digest")},
            "manifestDigest": digest,
            "manifest": {"digest": digest, "state": "serving", "since": _now(), "error": None},
            "adapters": adapters,
            "draining": [],
        }
        path = f"{layout.statuses(environment)}server/0.json"
        self.store(environment).write(path, json.dumps(document | other).encode())

    def objects(self) -> list[str]:
        """Every object of the stores in folders."""
        files = (self.root / ".lorafleet").rglob("*")
        return sorted(str(path) for path in files if path.is_file() and ".store" not in path.parts)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """`lorafleet release ...`: exit code, standard output, standard error."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["release", *arguments])
        return code, out.getvalue(), err.getvalue()


def second_versions(root: Path, store: str = "file://.lorafleet/store") -> Releases:
    """Both environments serve the first versions; `local` then went on to the second ones."""
    project = Releases(root, store)
    project.push(version=1)
    project.push(version=2)
    project.up("local")
    project.up("second")
    project.pin("local", **V2)
    project.up("local")
    return project


@functools.cache
def local_file(store: str) -> str:
    """stacks/Pulumi.local.yaml with this store, its adapters from the store, and the demo's first versions."""
    text = (ROOT / "stacks" / "Pulumi.local.yaml").read_text()
    lines = [
        line for line in text.splitlines() if not line.strip().startswith(("store:", "source: file://demo/adapters"))
    ]
    head = lines.index("  serving:fleet:") + 1
    lines.insert(head, f"    store: {store}")
    return "\n".join(line for line in lines if not line.startswith("encryptionsalt")) + "\n"


def _now() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
