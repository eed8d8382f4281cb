"""The commands and what they are made of, on a folder store: concurrency, prune, verify, holds, models, licences."""

import datetime
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lorafleet import cli, licence
from lorafleet.digest import content_digest
from lorafleet.load import load_stack
from providers.artifacts import layout
from providers.artifacts.fetch import parse_origin
from providers.artifacts.folder_store import FolderStore
from providers.artifacts.prune import plan_prune, prune
from providers.artifacts.push import Pushed, push
from providers.artifacts.rules import rules_of
from providers.artifacts.versions import list_versions, look_at
from tests.support.artifacts_kit import BASE, DEMO_ADAPTER, DEMO_ADAPTER_V2, copy_adapter, make_project

Run = Callable[..., str]
ANY_AGE = datetime.timedelta(0)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = make_project(tmp_path / "project", f"file://{tmp_path}/store")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def store(project: Path) -> FolderStore:
    return FolderStore(project.parent / "store")


@pytest.fixture
def run(project: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command and returns its standard output, with `errors` both outputs; fails unless it exits with `code`."""

    def command(*arguments: str, code: int = 0, errors: bool = False) -> str:
        found = cli.main(list(arguments))
        out, err = capsys.readouterr()
        assert found == code, err
        return err + out if errors else out

    return command


def variant(folder: Path, number: int) -> Path:
    """A good adapter whose content no other number has."""
    return copy_adapter(DEMO_ADAPTER, folder / f"variant-{number}", lora_alpha=number + 1)


def stored(project: Path, store: Any, source: Path, name: str = "easycontract") -> Pushed:
    fleet = load_stack(project, "local")
    return push(store, parse_origin(str(source), Path.cwd()), name, rules_of(fleet, store))


def test_from_push_to_pull(run: Run, project: Path, store: FolderStore, tmp_path: Path) -> None:
    digest = content_digest(DEMO_ADAPTER, "adapter")
    first = json.loads(run("adapter", "push", str(DEMO_ADAPTER), "--name", "a", "--note", "[red]one[/]", "--json"))
    assert (first["made"], first["digest"]) == (True, digest)
    assert first["metadata"] == json.loads(
        (tmp_path / "store/adapters/a" / digest.replace(":", "-") / "lorafleet.json").read_text()
    )
    assert set(first["metadata"]) == {
        "version", "kind", "name", "digest", "files", "baseModel", "rank", "alpha", "targetModules", "dtype", "source",
        "note", "createdAt", "createdBy",
    }  # fmt: skip
    assert first["metadata"]["alpha"] == 16 and first["metadata"]["dtype"] == "F32"
    again = json.loads(run("adapter", "push", str(DEMO_ADAPTER), "--name", "a", "--note", "another", "--json"))
    assert again["made"] is False and again["metadata"] == first["metadata"]
    run("adapter", "push", str(DEMO_ADAPTER_V2), "--name", "a")
    listed = json.loads(run("adapter", "list", "a", "--json"))
    assert {one["digest"] for one in listed} == {digest, content_digest(DEMO_ADAPTER_V2, "adapter")}
    assert "[red]one[/]" in run("adapter", "list")
    assert digest in run("adapter", "show", f"a@{digest[:12]}")
    assert "several versions fit" in run("adapter", "show", "a", code=1, errors=True)
    assert "Did you mean a?" in run("adapter", "show", "aa", code=1, errors=True)
    assert "no such version" in run("adapter", "show", "a@sha256:" + "0" * 64, code=1, errors=True)
    run("adapter", "pull", f"a@{digest}", str(tmp_path / "back"))
    assert content_digest(tmp_path / "back", "adapter") == digest
    assert "not empty" in run("adapter", "pull", f"a@{digest}", str(tmp_path / "back"), code=1, errors=True)
    assert json.loads(run("adapter", "verify", "--json"))["faults"] == []


def test_verify_names_each_fault(run: Run, project: Path, store: FolderStore, tmp_path: Path) -> None:
    folders = []
    for number in range(6):
        done = stored(project, store, variant(tmp_path, number))
        folders.append(tmp_path / "store" / layout.adapter("easycontract", done.metadata.digest))
    weights = "adapter_model.safetensors"
    data = bytearray((folders[0] / weights).read_bytes())
    data[-1] ^= 1
    (folders[0] / weights).write_bytes(data)
    (folders[1] / weights).unlink()
    (folders[2] / "extra").write_text("x")
    (folders[3] / "lorafleet.json").write_text("{")
    metadata = json.loads((folders[4] / "lorafleet.json").read_text())
    (folders[4] / "lorafleet.json").write_text(json.dumps(metadata | {"name": "other"}))
    (folders[5] / "lorafleet.json").unlink()
    (tmp_path / "store/adapters/stray").write_text("x")
    out = run("adapter", "verify", code=1)
    wrong = [line for line in out.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 6, out
    for number, words in enumerate(("SHA-256", "missing", "does not belong", "can't be read", "name: other")):
        line = next(one for one in wrong if folders[number].name in one)
        assert words in line
    assert any("adapters/stray" in one and "no part of any version" in one for one in wrong)
    found = json.loads(run("adapter", "verify", "--json", code=1))
    assert len(found["faults"]) == 6 and len(found["halfDone"]) == 1


def test_a_push_puts_right_what_is_missing(project: Path, store: FolderStore, tmp_path: Path) -> None:
    done = stored(project, store, DEMO_ADAPTER)
    folder = tmp_path / "store" / layout.adapter("easycontract", done.metadata.digest)
    (folder / "adapter_config.json").unlink()
    again = stored(project, store, DEMO_ADAPTER)
    assert not again.made
    assert content_digest(folder, "adapter") == done.metadata.digest


def test_pushes_at_once(run: Run, project: Path, store: FolderStore, tmp_path: Path) -> None:
    sources = [
        variant(tmp_path, number % 3) if number < 3 else tmp_path / f"variant-{number % 3}" for number in range(12)
    ]
    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(lambda source: stored(project, store, source), sources))
    assert len({one.metadata.digest for one in done}) == 3
    assert sum(one.made for one in done) == 3
    found = json.loads(run("adapter", "verify", "--json"))
    assert sorted(found["versions"]) == sorted({f"easycontract@{one.metadata.digest}" for one in done})
    assert (found["faults"], found["halfDone"]) == ([], [])


def test_prune_keeps_what_is_referred_to(run: Run, project: Path, store: FolderStore, tmp_path: Path) -> None:
    digests = [stored(project, store, variant(tmp_path, number)).metadata.digest for number in range(10)]
    make_project(project, f"file://{tmp_path}/store", digest=digests[0])
    (project / "stacks/Pulumi.prod.yaml").write_text(f"release: {{canaries: {{a: {{digest: '{digests[1]}'}}}}}}")
    store.write("manifests/local.json", json.dumps({"adapters": [{"digest": digests[2]}]}).encode())
    store.write("status/local/server/0.json", json.dumps({"draining": [{"digest": digests[3]}]}).encode())
    # The newest release twice, then the one before it, then an older one.
    for second, digest in enumerate((digests[7], digests[6], digests[5], digests[5])):
        record = {"at": "x", "release": {"baseModel": {}, "adapters": {"a": digest}}, "releaseDigest": digest[7:]}
        store.write(layout.served("prod", "a", digest), b"{}")
        at = datetime.datetime(2026, 1, 1, 0, 0, second, tzinfo=datetime.UTC)
        store.write(layout.release("prod", at, digest[7:]), json.dumps(record).encode())
    store.write("releases/dev/20260101T000000.000000Z-broken.json", f"broken {digests[8]}".encode())
    kept = {digests[number] for number in (0, 1, 2, 3, 5, 6, 8)}
    assert "10 too young" not in run("adapter", "prune", "--dry-run")
    before = [entry.path for entry in store.list("")]
    dry = json.loads(run("adapter", "prune", "--older-than", "0", "--dry-run", "--json"))
    assert {one["digest"] for one in dry["remove"]} == {digests[number] for number in (4, 7, 9)}
    assert "nobody is there to be asked" in run("adapter", "prune", "--older-than", "0", code=1, errors=True)
    assert [entry.path for entry in store.list("")] == before
    done = json.loads(run("adapter", "prune", "--older-than", "0", "--yes", "--json"))
    assert done["freedBytes"] == dry["bytes"] > 0
    assert {version.digest for version in list_versions(store, "adapter").versions} == kept
    assert json.loads(run("adapter", "verify", "--json"))["halfDone"] == []


def test_prune_keeps_what_is_young_and_half_done(project: Path, store: FolderStore, tmp_path: Path) -> None:
    done = stored(project, store, DEMO_ADAPTER)
    half = stored(project, store, DEMO_ADAPTER_V2)
    version = look_at(store, "adapter", "easycontract", half.metadata.digest)
    assert version.metadata_entry
    store.delete(version.metadata_entry.path)
    week = datetime.timedelta(days=7)
    now = datetime.datetime.now(datetime.UTC)
    assert [one.digest for one in plan_prune(store, project, older_than=week).young] == [done.metadata.digest]
    assert [one.digest for one in plan_prune(store, project, older_than=ANY_AGE).remove] == [done.metadata.digest]
    later = plan_prune(store, project, older_than=ANY_AGE, now=now + datetime.timedelta(days=1.1))
    assert len(later.remove) == 2
    assert len(plan_prune(store, project, older_than=week, now=now + datetime.timedelta(days=7.1)).remove) == 2


def test_a_release_that_came_after_the_plan_spares(project: Path, store: FolderStore) -> None:
    done = stored(project, store, DEMO_ADAPTER)
    plan = plan_prune(store, project, older_than=ANY_AGE)
    assert len(plan.remove) == 1
    store.write("manifests/local.json", done.metadata.digest.encode())
    assert list(prune(store, project, plan).spared.values()) == ["manifests/local.json refers to it now"]
    assert look_at(store, "adapter", "easycontract", done.metadata.digest).metadata_entry


def test_a_push_after_the_plan_spares(project: Path, store: FolderStore) -> None:
    done = stored(project, store, DEMO_ADAPTER)
    plan = plan_prune(store, project, older_than=ANY_AGE)
    assert not stored(project, store, DEMO_ADAPTER).made
    assert "pushed again" in next(iter(prune(store, project, plan).spared.values()))
    assert len(look_at(store, "adapter", "easycontract", done.metadata.digest).files) == 2


class _Meddler:
    """A store in whose calls something else happens: `before[n]` just before the n-th one."""

    def __init__(self, store: FolderStore, at: int, act: Callable[[], object]) -> None:
        self._store, self._at, self._act, self.calls = store, at, act, 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not callable(value):
            return value

        def call(*args: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls == self._at:
                self._act()
            return value(*args, **more)

        return call


@pytest.mark.parametrize("half_done", [False, True], ids=["whole", "half-done"])
def test_a_push_at_each_moment_of_a_prune(half_done: bool, project: Path, store: FolderStore, tmp_path: Path) -> None:
    """And a prune at each moment of a push: in the end, what was pushed is there, whole."""
    moments = 1
    at = 0
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)
    while at < moments:
        at += 1
        for prune_outside in (True, False):
            shutil.rmtree(tmp_path / "store", ignore_errors=True)
            digest = stored(project, store, DEMO_ADAPTER).metadata.digest
            if half_done:
                store.delete(f"{layout.adapter('easycontract', digest)}/lorafleet.json")
            plan = plan_prune(store, project, older_than=ANY_AGE, now=now)
            assert len(plan.remove) == 1
            if prune_outside:
                outer = _Meddler(store, at, lambda: stored(project, store, DEMO_ADAPTER))
                prune(outer, project, plan)
                if outer.calls < at:
                    stored(project, store, DEMO_ADAPTER)
            else:
                outer = _Meddler(store, at, lambda plan=plan: prune(store, project, plan))  # type: ignore[misc]
                stored(project, outer, DEMO_ADAPTER)
            moments = max(moments, outer.calls)
            there = look_at(store, "adapter", "easycontract", digest)
            assert there.metadata_entry is not None, (at, prune_outside)
            assert content_digest(tmp_path / "store" / there.folder, "adapter") == digest, (at, prune_outside)
    assert moments >= 5


def test_prune_needs_the_projects_stacks(run: Run, project: Path) -> None:
    shutil.rmtree(project / "stacks")
    assert "not a folder of a lorafleet project" in run("adapter", "prune", code=1, errors=True)
    (project / "stacks").mkdir()
    out = run("adapter", "prune", "--store", f"file://{project.parent}/store", code=1, errors=True)
    assert "nobody could say what is in use" in out


def test_holds(run: Run, project: Path, store: FolderStore) -> None:
    digest = stored(project, store, DEMO_ADAPTER).metadata.digest
    assert "is held back" in run("adapter", "hold", "easycontract", "--why", "answers in verse")
    assert "was held back already: answers in verse" in run("adapter", "hold", "easycontract", "--why", "x")
    note = json.loads((project.parent / "store" / layout.hold("easycontract", digest)).read_text())
    assert set(note) == {"version", "name", "digest", "why", "by", "at"}
    assert "HELD" in run("adapter", "list") and "answers in verse" in run("adapter", "show", "easycontract")
    assert "any more" in run("adapter", "unhold", "easycontract")
    assert "HELD" not in run("adapter", "list")


def test_a_model_is_mirrored_once(run: Run, store: FolderStore, tmp_path: Path) -> None:
    first = json.loads(run("model", "mirror", str(BASE), "--name", "demo", "--json"))
    digest = content_digest(BASE, "model")
    assert first["made"] and first["metadata"]["digest"] == digest
    assert {"rank", "alpha", "targetModules", "baseModel"}.isdisjoint(first["metadata"])
    assert json.loads(run("model", "mirror", str(BASE), "--name", "demo", "--json"))["made"] is False
    assert content_digest(tmp_path / "store" / layout.model("demo", digest), "model") == digest
    assert digest in run("model", "list")
    assert json.loads(run("model", "verify", "--json"))["faults"] == []


@pytest.mark.parametrize("file", ["LICENSE", "README.md", "config.json"])
def test_a_model_with_a_licence_needs_a_yes_and_a_purpose(
    file: str, run: Run, store: FolderStore, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BASE, folder)
    if file == "config.json":
        document = json.loads((folder / file).read_text()) | {"_name_or_path": "LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct"}
        (folder / file).write_text(json.dumps(document))
    else:
        (folder / file).write_text(
            "EXAONE AI Model\nLicense Agreement 1.1 - NC" if file == "LICENSE" else "license_name: exaone"
        )
    mirror = ("model", "mirror", str(folder), "--name", "demo")
    for more in (
        (),
        ("--purpose", "x"),
        ("--licence-accepted", "exaone-nc"),
        ("--licence-accepted", "mit", "--purpose", "x"),
    ):
        out = run(*mirror, *more, code=1, errors=True)
        assert "must be accepted" in out and "huggingface.co/LGAI-EXAONE" in out and "non-commercial" in out
    assert list(store.list("")) == []
    run(*mirror, "--licence-accepted", "exaone-nc", "--purpose", "a study")
    metadata = json.loads(run("model", "list", "--json"))[0]
    assert (metadata["licence"], metadata["purpose"]) == ("exaone-nc", "a study")


def test_a_model_of_pickles_is_refused(run: Run, store: FolderStore, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BASE, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickles" in run("model", "mirror", str(folder), "--name", "demo", code=1, errors=True)
    assert list(store.list("")) == []


def test_which_licence_is_needed() -> None:
    for name in (
        "hf://LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct", "LGAI-EXAONE/EXAONE-Deep-2.4B", "/models/EXAONE-3.5-2.4B-Instruct",
        "models--LGAI-EXAONE--EXAONE-3.5-7.8B-Instruct", "EXAONE AI Model License Agreement 1.1 - NC",
        "---\nlicense: other\nlicense_name: exaone\n---",
    ):  # fmt: skip
        assert licence.needed("something", name) == licence.EXAONE_NC, name
    assert (
        licence.needed("exaone-3.5-2.4b", "lorafleet-demo", "none needed", "meta-llama/Llama-3", "license: mit") is None
    )
