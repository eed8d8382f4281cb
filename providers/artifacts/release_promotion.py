"""Promotion: what one environment serves, with success, becomes the release of the next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorafleet.declaration import Fleet
from lorafleet.errors import LorafleetError, listed, nearest, shown
from lorafleet.release import document, pins
from lorafleet.release.document import StackDocument

from . import release_base
from .release_proposal import Proposal, check_version, look_up
from .release_reasons import Reasons
from .release_records import history
from .release_state import AdapterFacts, served_now
from .store import Store, open_store


def promotion(root: Path, source: str, target: str, *, only: Sequence[str] = (), force: str | None = None) -> Proposal:
    """Works out and checks the promotion of `source` to `target`; writes nothing.

    Args:
        root: the project's root.
        only: adapters to promote; the rest of the release stays. Without it, all of the release is promoted.
        force: a person's reason to override that a version is held back or was never served.

    Raises:
        LorafleetError: a stack file is wrong, or a store does not answer; RefusedError with every reason.
    """
    if source == target:
        raise LorafleetError(
            "an environment can't be promoted to itself",
            found=shown(source),
            allowed="two different environments",
            next_action="Name the environment that the release comes from, then the one that it goes to.",
        )
    read = _Environments(document.read(root, source), document.read(root, target))
    return _Promotion(read, only, force).proposal()


class _Environments:
    """Both environments, as declared."""

    def __init__(self, source: StackDocument, target: StackDocument) -> None:
        self.source, self.target = source, target
        self.from_fleet, self.to_fleet = source.fleet(), target.fleet_without_release()
        self.from_store = open_store(self.from_fleet.store_url)
        same = self.to_fleet.store_url == self.from_fleet.store_url
        self.to_store: Store = self.from_store if same else open_store(self.to_fleet.store_url)


class _Promotion:
    def __init__(self, environments: _Environments, only: Sequence[str], force: str | None) -> None:
        self.here = environments
        self.from_fleet, self.to_fleet = environments.from_fleet, environments.to_fleet
        self.source, self.target = self.from_fleet.environment, self.to_fleet.environment
        self.pins = pins.of(self.from_fleet.release)
        self.only = _known(only, self.pins["adapters"], self.from_fleet)
        self.names = self.only or list(self.pins["adapters"])
        self.force = force
        self.reasons = Reasons(force)
        self.notes: list[str] = []
        former = environments.target.release
        self.former: dict[str, Any] = {key: value for key, value in former.items() if value is not None}

    def proposal(self) -> Proposal:
        promoted = {name: self.pins["adapters"][name] for name in self.names}
        self._check_declared()
        base = self._base()
        self._check_served(promoted)
        self._check_versions(promoted)
        wanted = self._wanted(promoted, base)
        what = f"the promotion of {self.source} to {self.target}"
        if not self.reasons:
            try:
                self.here.target.fleet(wanted)  # nothing in this environment's declaration contradicts it
            except LorafleetError as error:
                self.reasons.add_error(error)
        self.reasons.refuse(what)
        only = f", only {listed(self.only, 'and')}" if self.only else ""
        return Proposal(
            title=f"{self.source} -> {self.target}{only}",
            command=self._command(),
            document=self.here.target,
            store=self.here.to_store,
            release=wanted,
            data=self.here.target.with_release(wanted),
            overridden=tuple(self.reasons.overridden),
            force=self.force,
            notes=tuple(self.notes),
        )

    def _command(self) -> str:
        words = ["lorafleet", "release", "promote", self.source, self.target]
        words += [word for name in self.only for word in ("--only", name)]
        return shlex.join([*words, *(("--force", self.force) if self.force else ())])

    def _wanted(self, promoted: Mapping[str, str], base: pins.Pins | None) -> pins.Pins:
        canaries = self._canaries_of_target(promoted)
        if self.only:
            former = self.former.get("adapters")
            adapters = {**(former if isinstance(former, Mapping) else {}), **promoted}
            return pins.normalised({**self.former, "adapters": adapters, "canaries": canaries})
        wanted = {"baseModel": base or {}, "adapters": dict(promoted), "image": self.pins.get("image")}
        return pins.normalised({**wanted, "canaries": canaries})

    def _check_declared(self) -> None:
        declared = self.to_fleet.adapters
        file = self.here.target.shown_path
        for name in self.names:
            if name not in declared:
                near = nearest(name, declared)
                self.reasons.add(
                    self.to_fleet.origin,
                    ("adapters",),
                    f"{self.target} does not declare the adapter {name}, which {self.source} serves",
                    found=f"{listed(declared, 'and')}{f' (is {near} the same?)' if near else ''}",
                    allowed=f"every adapter that is promoted, under the name that {self.source} has",
                    next_action=f"Add `{name}: {{}}` under `adapters` in {file}; its pin comes with the promotion.",
                )
        for name in declared if not self.only else ():
            if name not in self.pins["adapters"]:
                self.reasons.add(
                    self.to_fleet.origin,
                    ("adapters", name),
                    f"{self.target} declares the adapter {name}, which {self.source} does not serve",
                    allowed=f"the adapters of {self.source}: {listed(self.pins['adapters'], 'and')}",
                    next_action=f"Take it away here, serve it in {self.source} first, or promote the others with "
                    "--only NAME.",
                )
        self._check_image()

    def _check_image(self) -> None:
        new, old = self.pins.get("image"), self.former.get("image")
        if self.only or (new is None) == (old is None):
            return
        has, lacks = (self.from_fleet, self.to_fleet) if new else (self.to_fleet, self.from_fleet)
        self.reasons.add(
            has.origin,
            ("release", "image"),
            f"only {has.environment} pins an image, {lacks.environment} does not",
            found=shown(new or old),
            allowed="an image in both releases, or in none",
            next_action=f"Add `image:` to the release of {lacks.environment}, or take it away here.",
        )

    def _base(self) -> pins.Pins | None:
        if self.only:
            self._check_same_base()
            return None
        return release_base.promoted_pin(
            self.from_fleet, self.to_fleet, self.here.from_store, self.here.to_store, self.reasons
        )

    def _check_same_base(self) -> None:
        """Adapters alone are promoted: what was tried out in `source` must be tried out on the base of `target`."""
        mine, theirs = self.pins["baseModel"], pins.normalised({"x": self.former.get("baseModel") or {}})["x"]
        shared = [key for key in mine if key in theirs]
        if not shared or any(mine[key] != theirs[key] for key in shared):
            self.reasons.add(
                self.to_fleet.origin,
                ("release", "baseModel"),
                f"{self.target} serves another base model than {self.source}, where these adapters were tried out",
                found=listed([f"{key} {shown(value)}" for key, value in theirs.items()], "and"),
                allowed=listed([f"{key} {value}" for key, value in mine.items()], "and"),
                next_action="Promote the whole release, without --only.",
            )

    def _check_served(self, promoted: Mapping[str, str]) -> None:
        """That the file of `source` says what `source` serves, without a canary."""
        origin, canaries = self.from_fleet.origin, self.pins.get("canaries", {})
        up = f"Run `pulumi up --stack {self.source}` first."
        served = served_now(self.here.from_store, self.source)
        if served is None:
            self.reasons.add(
                origin,
                ("release",),
                f"{self.source} serves nothing: there is no manifest of it in the store",
                found=f"nothing in {self.from_fleet.store_url} for {self.source}",
                allowed="a release that is served",
                next_action=up,
            )
        now = served.release if served else None
        for name, digest in promoted.items():
            running = canaries.get(name) or (now or {}).get("canaries", {}).get(name)
            if running:
                self.reasons.add(
                    origin,
                    ("release", "canaries", name),
                    f"{self.source} has a canary running for {name}",
                    found=f"{running['digest']} with {running['weight']} %",
                    allowed="an adapter without a canary",
                    next_action=f"Finish it (pin its digest) or drop it, `pulumi up --stack {self.source}`; or promote "
                    "the others with --only NAME.",
                )
            if now is not None and now["adapters"].get(name) != digest:
                self.reasons.add(
                    origin,
                    ("release", "adapters", name),
                    f"the file of {self.source} says another version of {name} than {self.source} serves",
                    found=digest,
                    allowed=f"{now['adapters'].get(name, 'nothing under this name')}, which it serves",
                    next_action=up,
                )
        if not self.only and now is not None and now["baseModel"] != self.pins["baseModel"]:
            self.reasons.add(
                origin,
                ("release", "baseModel"),
                f"the file of {self.source} says another base model than {self.source} serves",
                found=listed(self.pins["baseModel"].values(), "and"),
                allowed=f"{listed(now['baseModel'].values(), 'and')}, which it serves",
                next_action=up,
            )
        if not self.only and self.pins.get("image"):
            self._check_image_is_out(up)

    def _check_image_is_out(self, up: str) -> None:
        """An image stands in no manifest, but in the record that `pulumi up` leaves."""
        records = history(self.here.from_store, self.source).records
        brought = records[0].release.get("image") if records else None
        if brought != self.pins["image"]:
            self.reasons.add(
                self.from_fleet.origin,
                ("release", "image"),
                f"the file of {self.source} says another image than `pulumi up` has brought to {self.source}",
                found=self.pins["image"],
                allowed=f"{brought or 'no image'}, which it brought",
                next_action=up,
            )

    def _check_versions(self, promoted: Mapping[str, str]) -> None:
        mine = look_up(self.here.from_store, self.source, promoted)
        same = self.here.to_store is self.here.from_store
        theirs = mine if same else look_up(self.here.to_store, self.target, promoted)
        for name, digest in promoted.items():
            if name not in self.to_fleet.adapters:
                continue
            self._check_history(name, digest, mine[name])
            hold = mine[name].hold if theirs[name].hold is None else theirs[name].hold
            facts = AdapterFacts(theirs[name].metadata, hold, theirs[name].served)
            path = ("release", "adapters", name)
            get_it = self._get_it(name, digest, mine[name])
            check_version(self.to_fleet, path, name, digest, facts, self.reasons, get_it=get_it)
            self._check_elsewhere(name)

    def _check_history(self, name: str, digest: str, facts: AdapterFacts) -> None:
        if not facts.served:
            self.reasons.add(
                self.from_fleet.origin,
                ("release", "adapters", name),
                f"{name} {digest} was never served healthy in {self.source}",
                found="no server has said that it answers with it",
                allowed="a version that a server has probed and served there",
                next_action=f"`pulumi up --stack {self.source}`, send it a request, and look at "
                f"`lorafleet release show {self.source}`.",
                may_force=True,
            )

    def _check_elsewhere(self, name: str) -> None:
        """A hub or a bucket of its own is not looked into: both environments must take the adapter from one place."""
        mine, theirs = self.from_fleet.adapters[name], self.to_fleet.adapters[name]
        if theirs.source is None or theirs.source.scheme == "file":
            return
        if (str(mine.source), mine.revision) != (str(theirs.source), theirs.revision):
            self.reasons.add(
                self.to_fleet.origin,
                ("adapters", name, "source"),
                f"{self.target} takes {name} from another place than {self.source}",
                found=str(theirs.source),
                allowed=f"{mine.source or 'the store'}{f' at {mine.revision}' if mine.revision else ''}",
                next_action="Declare the same source here, or take `source` away and push the adapter to the store.",
            )

    def _get_it(self, name: str, digest: str, facts: AdapterFacts) -> str:
        # By the stack of `source`, whose declaration is right: that of `target` may not pin all of its adapters yet.
        version, same = f"{name}@{digest}", self.here.to_store is self.here.from_store
        store = "" if same else f" --store {self.to_fleet.store_url}"
        if facts.metadata is None or same:
            declared = self.from_fleet.adapters[name].source
            folder = declared.address if declared and declared.scheme == "file" else "FOLDER"
            return f"Push it: lorafleet adapter push {folder} --name {name} --stack {self.source}{store}"
        return (
            f"The store of {self.source} has it: lorafleet adapter pull {version} FOLDER --stack {self.source} && "
            f"lorafleet adapter push FOLDER --name {name} --stack {self.source}{store}"
        )

    def _canaries_of_target(self, promoted: Mapping[str, str]) -> dict[str, Any]:
        """Those that stay. One of the promoted digest is finished by that; another one stands in the way."""
        found = self.former.get("canaries")
        stays: dict[str, Any] = {}
        for name, canary in found.items() if isinstance(found, Mapping) else ():
            digest = canary.get("digest") if isinstance(canary, Mapping) else None
            if name not in promoted:
                stays[name] = canary
            elif digest == promoted[name]:
                self.notes.append(f"the canary of {name} in {self.target} ends: it becomes the version for everyone")
            else:
                self.reasons.add(
                    self.to_fleet.origin,
                    ("release", "canaries", name),
                    f"{self.target} has a canary of another version of {name}",
                    found=shown(digest),
                    allowed="no canary for an adapter that is promoted",
                    next_action=f"Take it away and `pulumi up --stack {self.target}`, or promote the others with "
                    "--only NAME.",
                )
        return stays


def _known(only: Sequence[str], adapters: Mapping[str, str], fleet: Fleet) -> list[str]:
    for name in only:
        if name not in adapters:
            near = nearest(name, adapters)
            raise LorafleetError(
                f"{fleet.environment} has no adapter of this name",
                where=fleet.origin.where(("release", "adapters")),
                found=shown(name),
                allowed=listed(adapters),
                next_action=f"Did you mean {near}?" if near else "Name one of these behind --only.",
            )
    return list(dict.fromkeys(only))
