"""`lorafleet model mirror`: one pinned revision of a base model into the store, with the licence's gate."""

from __future__ import annotations

import hashlib
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from lorafleet import files, licence, models
from lorafleet.digest import MODEL_PATTERNS, content_files, digest_of_sums
from lorafleet.errors import LorafleetError, Problem, listed, shown

from . import hub, staging
from .fetch import Origin, at
from .parallel import run_all
from .push import Phase, checked_sentence, no_progress
from .put import put_version
from .staging import Staged
from .store import Progress, Store
from .versions import FileFacts, Metadata, checked_name, now, who

_CHUNK_BYTES = 1 << 20
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Read for the licence alone; neither stored nor part of the digest.
_LICENCE_FILES = re.compile(r"(?i)(?:licen[cs]e|readme)(?:\.(?:md|txt))?")
_MOST_TEXT_BYTES = 1 << 20


@dataclass(frozen=True)
class Mirrored:
    """The metadata of the mirrored model, as the store has it, and whether this call made the version."""

    metadata: Metadata
    made: bool


def mirror(
    store: Store,
    origin: Origin,
    name: str,
    *,
    accepted: str | None = None,
    purpose: str | None = None,
    phase: Phase = no_progress,
) -> Mirrored:
    """Copy exactly the files of the model's digest. A repeat goes on where it was ended.

    Args:
        store: where to.
        origin: `hf://` with a commit, or a folder.
        name: the model's name in the store.
        accepted: id of the licence that was accepted (`lorafleet.licence`), needed where the model has one.
        purpose: what the model is used for; needed with it.

    Raises:
        LorafleetError: a licence is not accepted, the weights are pickles or not this project's architecture, ...
        StoreError: the store's own errors.
    """
    checked_name("model", name)
    checked_sentence(purpose, "--purpose")
    check_licence(accepted, purpose, str(origin.source))
    if origin.source.scheme == "gs":
        raise LorafleetError(
            "a model is mirrored from the hub or from a folder",
            where=str(origin),
            found="a bucket",
            allowed="hf://owner/repository with --revision, or a folder",
            next_action="A model in a bucket can be served from there; to copy it, fetch it into a folder first.",
        )
    try:
        with _folder(origin) as folder:
            if origin.source.scheme == "hf":
                staged = _from_hub(origin, folder, accepted, purpose, phase)
            else:
                check_licence(accepted, purpose, *_texts(folder))
                models.inspect(folder)
                staged = _summed(folder, phase)
            return _stored(store, origin, name, staged, accepted, purpose, phase)
    except Problem as problem:
        raise at(problem, origin) from None


def check_licence(accepted: str | None, purpose: str | None, *names: str) -> None:
    """Raise `LorafleetError` unless the licence that these names and texts ask for was accepted, with a purpose."""
    asked = licence.needed(*names)
    if asked is None:
        return
    if accepted == asked.id and purpose and purpose.strip():
        return
    raise LorafleetError(
        f"the licence of this model must be accepted first: {asked.title}",
        where=asked.url,
        found=f"--licence-accepted {shown(accepted)}"
        if accepted not in (None, asked.id)
        else "no acceptance"
        if accepted is None
        else "no purpose",
        allowed=asked.terms,
        next_action=f"Read it. If your use is covered: --licence-accepted {asked.id} --purpose 'what you use it for'.",
    )


def _folder(origin: Origin) -> AbstractContextManager[Path]:
    if origin.source.scheme == "file":
        return nullcontext(Path(origin.source.address))
    # The same folder at each try, so that a download goes on where it was.
    return staging.folder(hashlib.sha256(str(origin).encode()).hexdigest()[:32])


def _texts(folder: Path) -> list[str]:
    """What may say the licence in a folder: LICENSE, README and config.json, each cut at 1 MiB."""
    files.check_folder(folder, "the model's folder", allowed="a folder with config.json, *.safetensors and a tokenizer")
    found = []
    for path in sorted(folder.iterdir()):
        if (_LICENCE_FILES.fullmatch(path.name) or path.name == "config.json") and path.is_file():
            with path.open("rb") as file:
                found.append(file.read(_MOST_TEXT_BYTES).decode("utf-8", errors="replace"))
    return found


def _from_hub(
    origin: Origin, folder: Path, accepted: str | None, purpose: str | None, phase: Phase
) -> dict[str, Staged]:
    repository, revision = origin.source.address, origin.revision
    assert revision is not None  # the command has seen to it
    there = {name: file for name, file in hub.list_files(repository, revision).items() if "/" not in name}
    # The small texts first: a licence that is not accepted is said before gigabytes are fetched.
    texts = folder / "licence"
    texts.mkdir(exist_ok=True)
    for name, file in sorted(there.items()):
        wanted = _LICENCE_FILES.fullmatch(name) or name == "config.json"
        if wanted and (file.size or 0) <= _MOST_TEXT_BYTES:
            hub.fetch(repository, revision, file, texts)
    check_licence(accepted, purpose, *_texts(texts))
    wanted_files = {
        name: file for name, file in there.items() if any(fnmatchcase(name, pattern) for pattern in MODEL_PATTERNS)
    }
    _check_weights(wanted_files, there, origin)
    total = sum(file.size or 0 for file in wanted_files.values())
    place = folder / "model"
    place.mkdir(exist_ok=True)
    have = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    staging.check_room(folder, max(0, total - have))
    progress = phase("fetching", total)
    fetched = run_all(lambda file: hub.fetch(repository, revision, file, place, progress), wanted_files.values())
    models.inspect(place)
    return dict(zip(wanted_files, fetched, strict=True))


def _check_weights(wanted: dict[str, hub.HubFile], there: dict[str, hub.HubFile], origin: Origin) -> None:
    if any(name.endswith(".safetensors") for name in wanted) and "config.json" in wanted:
        return
    pickles = sorted(name for name in there if name.endswith(_PICKLES))
    if pickles:
        raise LorafleetError(
            "the model's weights are pickles, which can run code when they are loaded",
            where=str(origin),
            found=listed(pickles[:3], "and"),
            allowed="config.json and *.safetensors",
            next_action="Choose a revision with safetensors, or convert them: "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained(FOLDER).",
        )
    raise LorafleetError(
        "these are not the files of a model",
        where=str(origin),
        found=listed([shown(name) for name in sorted(there)[:5]], "and"),
        allowed="config.json and *.safetensors at the top of the repository",
        next_action="Look at the repository's page.",
    )


def _summed(folder: Path, phase: Phase) -> dict[str, Staged]:
    """The files of a folder, read where they are: each is summed again while it is stored."""
    names = content_files(folder, "model")
    progress = phase("reading", sum((folder / name).stat().st_size for name in names))
    return dict(zip(names, run_all(lambda name: _sum(folder / name, name, progress), names), strict=True))


def _sum(path: Path, name: str, progress: Progress) -> Staged:
    summed, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                summed.update(chunk)
                size += len(chunk)
                progress(len(chunk))
    except OSError as error:
        raise files.unreadable(error, path, name, allowed="a readable file") from None
    return Staged(path, summed.hexdigest(), size)


def _stored(
    store: Store,
    origin: Origin,
    name: str,
    staged: dict[str, Staged],
    accepted: str | None,
    purpose: str | None,
    phase: Phase,
) -> Mirrored:
    metadata = Metadata(
        kind="model",
        name=name,
        digest=digest_of_sums({file: one.sha256 for file, one in staged.items()}),
        files={file: FileFacts(bytes=one.bytes, sha256=one.sha256) for file, one in staged.items()},
        revision=origin.revision,
        licence=accepted,
        purpose=purpose,
        source=str(origin.source),
        created_at=now(),
        created_by=who(),
    )
    there, made = put_version(store, metadata, staged, phase("storing", metadata.size_bytes))
    return Mirrored(there, made)
