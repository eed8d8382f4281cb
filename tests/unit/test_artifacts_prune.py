"""What a prune leaves: releases that a rollback goes to, and what comes into use at any moment of it."""

import datetime
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lorafleet import cli
from lorafleet.digest import content_digest
from lorafleet.load import load_stack
from lorafleet.manifest import digest_of
from providers.artifacts import layout
from providers.artifacts.fetch import parse_origin
from providers.artifacts.folder_store import FolderStore
from providers.artifacts.prune import Plan, plan_prune, prune
from providers.artifacts.push import push
from providers.artifacts.release_record import record
from providers.artifacts.release_records import history, was_served
from providers.artifacts.rules import rules_of
from providers.artifacts.store import UnreachableError
from providers.artifacts.versions import look_at
from tests.support.artifacts_kit import DEMO_ADAPTER, make_project
from tests.unit.release_kit import V1, V2, Releases

MANIFEST = "manifests/prod.json"
UNKNOWN = {name: f"sha256:{number}{'0' * 63}" for number, name in enumerate(V1)}


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A project with the environment `second` alone, which served the demo's first versions; no server runs now."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = Releases(tmp_path / "project")
    monkeypatch.chdir(found.root)
    found.file("local").unlink()
    found.push("second", version=1)
    found.push("second", version=2)
    found.up("second")
    found.store("second").delete(f"{layout.statuses('second')}server/0.json")
    return found


def test_releases_that_failed_take_no_place_of_one_that_was_served(
    second: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    for versions in (V2, UNKNOWN):
        second.pin("second", **versions)
        second.up("second", served=False)
    store = f"file://{second.root}/.lorafleet/store"
    assert cli.main(["adapter", "prune", "--older-than", "0", "--yes", "--store", store]) == 0
    assert "in 0 versions; 4 are in use" in capsys.readouterr().out
    code, _, err = second.run("rollback", "second")
    assert code == 0, err
    assert second.fleet("second").release.adapters == V1


def test_two_served_releases_are_kept_and_no_more(second: Releases) -> None:
    store = second.store("second")
    second.pin("second", **V2)
    second.up("second")
    second.pin("second", **UNKNOWN)
    second.up("second", served=False)
    store.delete(f"{layout.statuses('second')}server/0.json")
    assert plan_prune(store, second.root, older_than=datetime.timedelta(0)).remove == ()
    # A canary of an adapter makes of it another release, which is served once the canary is.
    canary = "sha256:" + "c" * 64
    release = {
        "baseModel": {},
        "adapters": dict(V2),
        "canaries": {"easycontract": {"digest": canary, "weight": 10}},
    }
    record(store, "second", release, digest_of(release))
    newest = history(store, "second").records[0]
    assert not was_served(store, "second", newest)
    assert plan_prune(store, second.root, older_than=datetime.timedelta(0)).remove == ()
    second.mark_served("second", "easycontract", canary)
    assert was_served(store, "second", newest)
    gone = plan_prune(store, second.root, older_than=datetime.timedelta(0)).remove
    assert {version.digest for version in gone} == set(V1.values())


def test_a_record_with_paths_for_names_is_one_that_can_not_be_read(second: Releases) -> None:
    store = second.store("second")
    for number, versions in enumerate(({"../x": V1["easycontract"]}, {"x": "sha256:../../x"}, {"x": 7})):
        release = {"baseModel": {}, "adapters": versions}
        record(store, "second", release, "")
        assert len(history(store, "second").unreadable) == number + 1
    assert plan_prune(store, second.root, older_than=datetime.timedelta(0)).remove != ()  # V2: nobody names it


class _Watched:
    """A store that tells before each call how many there were."""

    def __init__(self, store: FolderStore, before: Callable[[int], object]) -> None:
        self._store, self._before, self.calls = store, before, 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not callable(value):
            return value

        def call(*args: Any, **more: Any) -> Any:
            self.calls += 1
            self._before(self.calls)
            return value(*args, **more)

        return call


class _Scene:
    """A store with one version that nothing names, and the plan to remove it."""

    def __init__(self, folder: Path) -> None:
        self.root = make_project(folder / "project", f"file://{folder}/store")
        shutil.rmtree(folder / "store", ignore_errors=True)
        self.store = FolderStore(folder / "store")
        rules = rules_of(load_stack(self.root, "local"), self.store)
        done = push(self.store, parse_origin(str(DEMO_ADAPTER), folder), "easycontract", rules)
        self.digest = done.metadata.digest
        self.metadata = f"{layout.adapter('easycontract', self.digest)}/lorafleet.json"
        self.folder = folder / "store" / layout.adapter("easycontract", self.digest)
        self.told_missing: bool | None = None

    def plan(self, days: float = 0) -> Plan:
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        return plan_prune(self.store, self.root, older_than=datetime.timedelta(0), now=now)

    def write_manifest(self) -> None:
        """As the manifest's resource does: write, then look."""
        self.store.write(MANIFEST, self.digest.encode())
        self.told_missing = self.store.read(self.metadata) is None

    @property
    def whole(self) -> bool:
        there = look_at(self.store, "adapter", "easycontract", self.digest)
        return there.metadata_entry is not None and content_digest(self.folder, "adapter") == self.digest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_a_manifest_at_each_moment_of_a_prune(folder: Path) -> None:
    seen: set[tuple[bool, bool]] = set()
    at, moments = 0, 1
    while at < moments:
        at += 1
        scene = _Scene(folder)

        def act(call: int, *, scene: _Scene = scene, at: int = at) -> None:
            if call == at:
                scene.write_manifest()

        store = _Watched(scene.store, act)
        done = prune(store, scene.root, scene.plan())
        moments = max(moments, store.calls)
        if scene.told_missing is None:  # this one took fewer calls
            scene.write_manifest()
        assert scene.whole or scene.told_missing, at
        assert scene.whole == (done.removed == ()), at
        assert len(done.removed) + len(done.spared) == 1
        assert scene.whole or not scene.folder.exists(), at
        seen.add((scene.whole, bool(scene.told_missing)))
    # Before the metadata goes, while it is away for a moment, and after the last look.
    assert seen == {(True, False), (True, True), (False, True)}


def _two_plans(scene: _Scene) -> tuple[Plan, Plan]:
    """Of a prune, and of a second one that planned while the first had the metadata away: a half-done version."""
    metadata = scene.store.read(scene.metadata)
    assert metadata is not None
    scene.store.delete(scene.metadata)
    second = scene.plan(days=2)
    assert len(second.remove) == 1
    scene.store.write(scene.metadata, metadata.data)
    return scene.plan(), second


def test_a_second_prune_at_each_moment_of_one_that_gives_back(folder: Path) -> None:
    """The manifest comes when the metadata is away."""
    at, moments = 0, 1
    while at < moments:
        at += 1
        scene = _Scene(folder)
        first_plan, second_plan = _two_plans(scene)

        def act(call: int, *, scene: _Scene = scene, at: int = at, plan: Plan = second_plan) -> None:
            if call == at:
                prune(scene.store, scene.root, plan)
            if scene.told_missing is None and scene.store.read(scene.metadata) is None:
                scene.write_manifest()

        store = _Watched(scene.store, act)
        prune(store, scene.root, first_plan)
        moments = max(moments, store.calls)
        assert scene.told_missing
        assert scene.whole or scene.store.read(scene.metadata) is None, at


def test_a_prune_that_gives_back_at_each_moment_of_a_second_one(folder: Path) -> None:
    """The first one rests when it has removed the metadata, and ends at a moment of the second one."""
    at, moments = 0, 1
    ends: set[bool] = set()
    while at < moments:
        at += 1
        scene = _Scene(folder)
        first_plan, second_plan = _two_plans(scene)
        rests, goes_on = threading.Event(), threading.Event()

        def rest(call: int, *, scene: _Scene = scene, rests: Any = rests, goes_on: Any = goes_on) -> None:
            if not rests.is_set() and scene.store.read(scene.metadata) is None:
                rests.set()
                assert goes_on.wait(60)

        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(prune, _Watched(scene.store, rest), scene.root, first_plan)
            assert rests.wait(60)

            def end(call: int, *, scene: _Scene = scene, at: int = at, wait: Any = (goes_on, first)) -> None:
                if call == at:
                    scene.write_manifest()
                    wait[0].set()
                    wait[1].result(60)

            store = _Watched(scene.store, end)
            prune(store, scene.root, second_plan)
            goes_on.set()
        first.result()
        moments = max(moments, store.calls)
        if scene.told_missing is None:
            scene.write_manifest()
        assert scene.told_missing
        assert scene.whole or scene.store.read(scene.metadata) is None, at
        ends.add(scene.whole)
    assert ends == {True, False}


def test_a_prune_that_can_not_look_again_gives_the_metadata_back(folder: Path) -> None:
    scene = _Scene(folder)
    failed: list[int] = []

    def fail_once_it_is_gone(call: int) -> None:
        if not failed and scene.store.read(scene.metadata) is None:
            failed.append(call)
            raise UnreachableError("the store does not answer")

    with pytest.raises(UnreachableError):
        prune(_Watched(scene.store, fail_once_it_is_gone), scene.root, scene.plan())
    assert failed and scene.whole
