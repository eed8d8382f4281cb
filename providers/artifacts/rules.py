"""What a stack's fleet asks of an adapter before it may be stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafleet import adapters, exaone, files
from lorafleet.declaration import Fleet
from lorafleet.errors import Problem, shown
from lorafleet.plan import base_names

from . import weights
from .fetch import ADDED_TOKENS, WEIGHTS, Fetched
from .store import Store, StoreError, open_store
from .versions import list_versions, read_metadata

_CONFIG = "config.json"


@dataclass(frozen=True)
class Rules:
    """What is asked of an adapter.

    Fields:
        base_names: values of `base_model_name_or_path` that mean the fleet's base.
        max_rank: the highest rank that every target takes; None while there is no target.
        max_rank_of: the target that takes no more.
        shape: the base's sizes; None where its config.json can't be read from here.
    """

    base_names: frozenset[str]
    max_rank: int | None
    max_rank_of: str
    shape: exaone.Shape | None


def rules_of(fleet: Fleet, store: Store) -> Rules:
    """The rules of a stack. The base's config.json is read from where it is, or from its mirror in the store."""
    ranks = [(target.engine.max_lora_rank, name) for name, target in fleet.targets.items()]
    max_rank, name = min(ranks) if ranks else (None, "")
    return Rules(frozenset(base_names(fleet)), max_rank, name, _shape(fleet, store))


def check(fetched: Fetched, rules: Rules) -> tuple[adapters.AdapterFacts, list[str]]:
    """Look at a fetched adapter; returns what it is, and what is strange but no mistake, in words.

    Raises:
        Problem: the first thing that is wrong.
    """
    facts = adapters.inspect(fetched.folder, base_names=rules.base_names, shape=rules.shape)
    if rules.max_rank is not None and facts.rank > rules.max_rank:
        raise Problem(
            "the adapter's rank is higher than the fleet takes",
            found=f"rank {facts.rank}",
            allowed=f"at most {rules.max_rank} (maxLoraRank of the target {rules.max_rank_of})",
            next_action="Train it with a lower r, or raise maxLoraRank (every adapter then takes more memory).",
        )
    warnings = weights.check(fetched.folder / WEIGHTS, facts.tensors)
    if fetched.added_tokens is not None:
        warnings += _check_added_tokens(fetched.added_tokens, rules.shape)
    if rules.shape is None:
        warnings.append(
            "the base's config.json can't be read from here, so layers and shapes were not compared with it"
        )
    return facts, warnings


def _check_added_tokens(path: Path, shape: exaone.Shape | None) -> list[str]:
    """Tokens that the base does not have: the server has the base's vocabulary and can't take more."""
    try:
        tokens = files.read_json(path, ADDED_TOKENS)
    except Problem as problem:
        raise Problem(
            f"{ADDED_TOKENS} beside the adapter can't be read, so it may add tokens to the base's vocabulary",
            found=problem.found,
            allowed="no such file, or token numbers by token",
            next_action="Take it away if the training added no tokens.",
        ) from None
    size = shape.vocabulary if shape else None
    beyond = [token for token, number in tokens.items() if type(number) is not int or size is None or number >= size]
    if beyond and size is not None:
        raise Problem(
            "the adapter was trained with tokens that the base does not have",
            found=f"{len(beyond)} in {ADDED_TOKENS}, as {shown(beyond[0])}",
            allowed=f"the base's vocabulary of {size} tokens",
            next_action="Train it without adding tokens or resizing the embeddings.",
        )
    return [f"there is an {ADDED_TOKENS}, which could not be compared with the base's vocabulary"] if beyond else []


def _shape(fleet: Fleet, store: Store) -> exaone.Shape | None:
    config = _config(fleet, store)
    return exaone.shape_of(config) if config is not None else None


def _config(fleet: Fleet, store: Store) -> dict[str, Any] | None:
    """The base's config.json; None where it can't be read from here."""
    source, pin = fleet.base_model.source, fleet.release.base_model
    try:
        if source.scheme == "file":
            return files.read_json(source.folder(fleet.origin.root) / _CONFIG, _CONFIG)
        if source.scheme == "gs":
            blob = open_store(str(source)).read(_CONFIG)
            return files.parse_json(blob.data, _CONFIG) if blob else None
        for version in list_versions(store, "model").versions:
            found = read_metadata(store, "model", version.name, version.digest) if version.metadata_entry else None
            if found and found.source == str(source) and found.revision == pin.revision:
                blob = store.read(f"{version.folder}/{_CONFIG}")
                return files.parse_json(blob.data, _CONFIG) if blob else None
    except (Problem, StoreError, json.JSONDecodeError):
        return None
    return None
