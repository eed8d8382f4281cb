"""The base model's pin on its way from one environment to another, which may take the model from another place."""

from __future__ import annotations

import re

from lorafleet.declaration import Fleet
from lorafleet.release import pins

from .release_proposal import check_base_files
from .release_reasons import Reasons
from .store import Store
from .versions import Metadata, list_versions, read_metadata

_MIRROR = re.compile(r".*/models/(?P<name>[^/]+)/sha256-(?P<hex>[0-9a-f]{64})/?")


def promoted_pin(
    from_fleet: Fleet, to_fleet: Fleet, from_store: Store, to_store: Store, reasons: Reasons
) -> pins.Pins | None:
    """The pin that `to_fleet` gets for the model that `from_fleet` serves; None after the reasons against it."""
    mine, theirs = from_fleet.base_model, to_fleet.base_model
    pin = pins.of(from_fleet.release)["baseModel"]
    if mine.architecture != theirs.architecture:
        reasons.add(
            to_fleet.origin,
            ("baseModel", "architecture"),
            f"{to_fleet.environment} declares a base model of another architecture than {from_fleet.environment}",
            found=theirs.architecture,
            allowed=mine.architecture,
            next_action=f"Adapters of {from_fleet.environment} can't run on it: declare the same base model.",
        )
        return None
    if theirs.source.scheme == "hf":
        return _of_hub(from_fleet, to_fleet, pin, from_store, reasons)
    return _of_files(from_fleet, to_fleet, pin, to_store, reasons)


def _of_hub(from_fleet: Fleet, to_fleet: Fleet, pin: pins.Pins, store: Store, reasons: Reasons) -> pins.Pins | None:
    mine, theirs = from_fleet.base_model.source, to_fleet.base_model.source
    if mine.scheme == "hf":
        if mine.address == theirs.address:
            return pin
        found = str(theirs)
    else:
        mirror = mirror_of(store, digest=pin.get("digest"))
        if mirror and mirror.revision and mirror.source.partition("@")[0] == str(theirs):
            return {"revision": mirror.revision}
        found = f"{theirs}, and nothing says that {mine} is a copy of it"
    reasons.add(
        to_fleet.origin,
        ("baseModel", "source"),
        f"{to_fleet.environment} takes another base model than {from_fleet.environment}",
        found=found,
        allowed=f"{mine}, or a mirror of it in the store",
        next_action="Declare the same `source` in both environments.",
    )
    return None


def _of_files(from_fleet: Fleet, to_fleet: Fleet, pin: pins.Pins, store: Store, reasons: Reasons) -> pins.Pins | None:
    source, digest = to_fleet.base_model.source, pin.get("digest")
    if digest is None:
        mirror = mirror_of(store, revision=pin.get("revision"))
        digest = mirror.digest if mirror else None
    if digest is None:
        origin = from_fleet.base_model.source
        reasons.add(
            to_fleet.origin,
            ("baseModel", "source"),
            f"the store of {to_fleet.environment} has no mirror of the base model at the revision that is promoted",
            found=f"{source} declared, revision {pin.get('revision')} promoted",
            allowed="a mirror of that revision",
            next_action=f"lorafleet model mirror {origin} --revision {pin.get('revision')} --name "
            f"{to_fleet.base_model.name} --store {to_fleet.store_url}, then name it as `source`.",
        )
        return None
    check_base_files(to_fleet, digest, reasons)
    place = _MIRROR.fullmatch(str(source))
    if source.scheme == "gs" and place:
        _check_mirror(to_fleet, place, digest, store, reasons)
    return {"digest": digest}


def _check_mirror(to_fleet: Fleet, place: re.Match[str], digest: str, store: Store, reasons: Reasons) -> None:
    """A source in a store says in its name which content it is."""
    name, here = place["name"], f"sha256:{place['hex']}"
    own = str(to_fleet.base_model.source).startswith(f"{store.url}/models/")
    if here != digest:
        what, found = "names another version of the base model than the one that is promoted", here
    elif own and read_metadata(store, "model", name, digest) is None:
        what, found = "names a base model that is not in the store", f"nothing of it in {store.url}"
    else:
        return
    base = str(to_fleet.base_model.source).partition("/models/")[0]
    reasons.add(
        to_fleet.origin,
        ("baseModel", "source"),
        f"{to_fleet.environment} {what}",
        found=found,
        allowed=digest,
        next_action=f"Mirror it (lorafleet model mirror), then write source: {base}/models/{name}/"
        f"{digest.replace(':', '-')}",
    )


def mirror_of(store: Store, *, digest: str | None = None, revision: str | None = None) -> Metadata | None:
    """The mirrored model of this digest or this revision."""
    for version in list_versions(store, "model").versions:
        if version.metadata_entry and (digest is None or version.digest == digest):
            metadata = read_metadata(store, "model", version.name, version.digest)
            if metadata and (revision is None or metadata.revision == revision):
                return metadata
    return None
