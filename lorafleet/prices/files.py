"""Finding, reading and writing price books."""

from __future__ import annotations

import json
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lorafleet.errors import DeclarationErrors, LorafleetError, Problem, listed, nearest, shown, shown_key
from lorafleet.files import read_json
from lorafleet.targets import PACKAGE

from .book import Book

FILE = "prices.json"
# Keys of the book whose lists and mappings get one line for each entry: a review then shows a line for each change.
_LISTS = ("sources", "billing", "prices", "months", "factors", "credits", "missing")


def providers_folder() -> Path:
    """The folder with the platforms' folders. Nothing of it is imported: a price needs no platform's code."""
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def platforms(folder: Path | None = None) -> tuple[str, ...]:
    """The platforms that have a price book, sorted."""
    found = (path.parent.name for path in (folder or providers_folder()).glob(f"*/{FILE}"))
    return tuple(sorted(name for name in found if name.isidentifier()))


def path_of(platform: str, folder: Path | None = None) -> Path:
    """Where a platform's book lies.

    Raises:
        LorafleetError: no platform of that name has one.
    """
    there = platforms(folder)
    if platform not in there:
        near = nearest(platform, there)
        raise LorafleetError(
            "no platform of this name has a price book",
            found=shown(platform),
            allowed=listed(there),
            next_action=f"Did you mean `{near}`?" if near else "Name one of those.",
        )
    return (folder or providers_folder()) / platform / FILE


def load_book(platform: str, folder: Path | None = None) -> Book:
    """Read a platform's price book. `folder` is the one with the platforms' folders; without it, lorafleet's own.

    Raises:
        LorafleetError: there is none, or it is wrong; every fault is told.
    """
    path = path_of(platform, folder)
    where = f"{path.parent.parent.name}/{platform}/{FILE}"
    try:
        document = read_json(path, "the price book")
    except Problem as problem:
        raise LorafleetError(
            problem.what,
            where=where,
            found=problem.found,
            allowed=problem.allowed,
            next_action=problem.next_action,
        ) from None
    try:
        book = Book.model_validate(document)
    except ValidationError as error:
        faults = [_fault(each, document, where) for each in error.errors(include_url=False)]
        raise (faults[0] if len(faults) == 1 else DeclarationErrors(faults)) from None
    if book.platform != platform:
        raise LorafleetError(
            "the book is another platform's",
            where=where,
            field="platform",
            found=shown(book.platform),
            allowed=platform,
            next_action="Correct `platform`, or move the file.",
        )
    return book


def load_books(folder: Path | None = None) -> dict[str, Book]:
    """All price books by their platforms' names.

    Raises:
        LorafleetError: one is wrong.
    """
    return {platform: load_book(platform, folder) for platform in platforms(folder)}


def dump(book: Book) -> str:
    """The book as its file's text; what has its default is left out. `load_book` of it gives the same book."""
    document: dict[str, Any] = {
        "version": book.version,
        "platform": book.platform,
        "currency": book.currency,
        **book.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"version", "platform"}),
    }
    return _layout(document, ("capabilities", *_LISTS), 1) + "\n"


def write_book(book: Book, path: Path) -> None:
    """Write the book, whole or not at all.

    Raises:
        LorafleetError: the file can't be written.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=".prices-", encoding="utf-8", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(dump(book))
        # A temporary file is for its owner alone; a book is a file of the checkout like any other.
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise LorafleetError(
            "the price book can't be written",
            where=str(path),
            found=error.strerror or "an error of the disk",
            allowed="a file that this user can write, on a disk with room",
            next_action="Mend that and run the command again; the book is as it was.",
        ) from None


def _layout(value: dict[str, Any], opened: tuple[str, ...], depth: int) -> str:
    """JSON with one line for each key, and for each entry of the keys in `opened`."""
    lines = []
    for key, part in value.items():
        if key == "capabilities":
            text = _layout(part, tuple(part), depth + 1)
        elif key in opened and part:
            text = _opened(part, depth)
        else:
            text = json.dumps(part, ensure_ascii=False)
        lines.append(f"{'  ' * depth}{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + f"\n{'  ' * (depth - 1)}}}"


def _opened(part: dict[str, Any] | list[Any], depth: int) -> str:
    entries = [json.dumps(entry, ensure_ascii=False) for entry in (part.values() if isinstance(part, dict) else part)]
    if isinstance(part, dict):
        entries = [f"{json.dumps(name)}: {entry}" for name, entry in zip(part, entries, strict=True)]
    start, end = "{}" if isinstance(part, dict) else "[]"
    pad = "\n" + "  " * depth
    return f"{start}{pad}  " + f",{pad}  ".join(entries) + f"{pad}{end}"


def _fault(error: Any, document: object, where: str) -> LorafleetError:
    """One fault in the words of errors; entries of lists are named by their id where they have one."""
    place = ""
    value = document
    for step in error["loc"]:
        value = value[step] if isinstance(value, dict | list) and _has(value, step) else None
        if isinstance(step, int):
            name = value.get("id") or value.get("gpu") or value.get("name") if isinstance(value, dict) else None
            place += f"[{name if isinstance(name, str) else step}]"
        else:
            place += f".{shown_key(step)}" if place else shown_key(step)
    context = error.get("ctx", {})
    if "what" in context:
        what, allowed, next_action = context["what"], context["allowed"], context["next_action"]
    elif error["type"] == "literal_error":
        what, allowed = "this value is not one of those that are valid here", context["expected"].replace("'", "")
        next_action = f"Write {allowed}."
    elif error["type"] == "missing":
        what, allowed, next_action = "this key is missing", "the key with its value", "Add it."
    elif error["type"] == "extra_forbidden":
        what, allowed, next_action = "there is no such key here", "the keys that docs/prices.md lists", "Take it away."
    else:
        what = error["msg"][:1].lower() + error["msg"][1:]
        allowed, next_action = "what docs/prices.md says", "Correct the value."
    found = "" if error["type"] in ("missing", "extra_forbidden") else shown(error["input"])
    return LorafleetError(what, where=where, field=place, found=found, allowed=allowed, next_action=next_action)


def _has(value: dict[Any, Any] | list[Any], step: object) -> bool:
    return step in value if isinstance(value, dict) else isinstance(step, int) and step < len(value)
