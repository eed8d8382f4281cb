"""A change of an environment's release that was checked and can be written, and the checks that all changes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorafleet.declaration import Adapter, Fleet
from lorafleet.digest import content_digest
from lorafleet.digest_cache import Cache
from lorafleet.errors import LorafleetError, Problem
from lorafleet.release import pins
from lorafleet.release.differences import unified
from lorafleet.release.document import StackDocument
from lorafleet.stackfile import FieldPath

from .parallel import run_all
from .release_reasons import Reasons, as_dict
from .release_records import save_block
from .release_state import AdapterFacts, adapter_facts
from .store import Store, StoreError


@dataclass(frozen=True)
class Proposal:
    """A release block to come.

    Fields:
        title: `dev -> staging`, for instance.
        command: what was asked for, without --dry-run.
        release: what the file will say.
        data: the file's bytes to come.
        overridden: reasons against it that --force has overridden, with the person's reason in `force`.
        notes: what a person should know besides the difference.
    """

    title: str
    command: str
    document: StackDocument
    store: Store
    release: pins.Pins
    data: bytes
    overridden: tuple[LorafleetError, ...]
    force: str | None
    notes: tuple[str, ...]

    @property
    def environment(self) -> str:
        return self.document.environment

    @property
    def changes(self) -> list[pins.Change]:
        return pins.changes(self.document.release, self.release)

    @property
    def diff(self) -> str:
        """As git shows it; empty if the file stays as it is."""
        return unified(self.document.text, self.data.decode("utf-8-sig"), self.document.block)

    @property
    def next_command(self) -> str:
        return f"pulumi up --stack {self.environment}"

    def apply(self) -> tuple[str, ...]:
        """Writes the file, after remembering the former block in the store. Returns warnings.

        Raises:
            LorafleetError: the file has changed meanwhile, or can't be written.
        """
        warnings: tuple[str, ...] = ()
        document = self.document
        try:
            save_block(self.store, document.environment, document.release, document.block_text)
        except StoreError as error:
            warnings = (
                "the former block's text could not be kept in the store, so a rollback will restore its values but may "
                f"not restore its comments: {error.what}",
            )
        document.write(self.data)
        return warnings

    def to_dict(self, *, written: bool) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "title": self.title,
            "file": self.document.shown_path,
            "written": written,
            "changes": [{"what": each.what, "old": each.old, "new": each.new} for each in self.changes],
            "diff": self.diff,
            "overridden": [as_dict(error) for error in self.overridden],
            "force": self.force if self.overridden else None,
            "notes": list(self.notes),
            "next": self.next_command if written or not self.diff else f"{self.command} && {self.next_command}",
        }


def look_up(store: Store, environment: str, versions: Mapping[str, str]) -> dict[str, AdapterFacts]:
    """What the store knows of {name: digest}, several asked at once. Raises StoreError."""
    found = run_all(lambda item: adapter_facts(store, environment, *item), versions.items())
    return dict(zip(versions, found, strict=True))


def check_version(
    fleet: Fleet,
    path: FieldPath,
    name: str,
    digest: str,
    facts: AdapterFacts,
    reasons: Reasons,
    *,
    get_it: str,
) -> None:
    """That `fleet` can serve this version of its adapter: it is there, fits, and is not held back.

    get_it: the command that puts a missing version into the fleet's store.
    """
    adapter, origin = fleet.adapters[name], fleet.origin
    if adapter.source is None and facts.metadata is None:
        reasons.add(
            origin,
            path,
            f"the store of {fleet.environment} has no version {digest} of {name}",
            found=f"nothing of it in {fleet.store_url}",
            allowed=f"a version that `lorafleet adapter list {name} --stack {fleet.environment}` shows",
            next_action=get_it,
        )
    if adapter.source is not None:
        _check_source(fleet, name, adapter, digest, reasons)
    if facts.hold is not None:
        reasons.add(
            origin,
            path,
            f"{name} {digest} is held back: {facts.hold}",
            allowed="a version that nobody holds back",
            next_action=f"Push a better one, or `lorafleet adapter unhold {name}@{digest}`.",
            may_force=True,
        )
    rank = facts.metadata.rank if facts.metadata else None
    for target, spec in fleet.targets.items():
        if rank is not None and rank > spec.engine.max_lora_rank:
            reasons.add(
                origin,
                ("targets", target, "engine", "maxLoraRank"),
                f"{name} {digest[:19]}… has a higher rank than the target {target} takes",
                found=f"rank {rank}, maxLoraRank {spec.engine.max_lora_rank}",
                allowed=f"maxLoraRank of {rank} or more",
                next_action="Raise maxLoraRank (every adapter then takes more memory), or train with a lower rank.",
            )


def check_base_files(fleet: Fleet, digest: str | None, reasons: Reasons) -> None:
    """That a base in a folder of this machine is the one that is pinned."""
    source = fleet.base_model.source
    if source.scheme != "file" or digest is None:
        return
    try:
        found = content_digest(source.folder(fleet.origin.root), "model", cache=Cache())
    except Problem as problem:
        found = f"{problem.what} ({problem.found})"
    if found != digest:
        reasons.add(
            fleet.origin,
            ("baseModel", "source"),
            f"the base model of {fleet.environment} is not the one that the release pins",
            found=found,
            allowed=digest,
            next_action=f"Mirror that model and name it here: lorafleet model mirror --stack {fleet.environment} …",
        )


def _check_source(fleet: Fleet, name: str, adapter: Adapter, digest: str, reasons: Reasons) -> None:
    """That a folder which an adapter names holds the version that is pinned."""
    if adapter.source is None or adapter.source.scheme != "file":
        return
    try:
        found = content_digest(adapter.source.folder(fleet.origin.root), "adapter", cache=Cache())
    except Problem as problem:
        found = f"{problem.what} ({problem.found})"
    if found != digest:
        reasons.add(
            fleet.origin,
            ("adapters", name, "source"),
            f"{fleet.environment} takes {name} from a folder that holds another content",
            found=found,
            allowed=digest,
            next_action="Take `source` away, so that it comes from the store, or copy the files there.",
        )
