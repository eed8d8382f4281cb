"""Finding the release block in a stack file's text, and its exact span."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lorafleet.errors import LorafleetError
from lorafleet.origin import CONFIG_KEY, PROJECT
from lorafleet.release import tree
from lorafleet.release.tree import Node
from lorafleet.stackfile import dotted

PATH = ("config", f"{PROJECT}:{CONFIG_KEY}", "release")


@dataclass(frozen=True, slots=True)
class Block:
    """The release block: `text[start:end]` is its key, its value, and a comment at the end of its last line.

    Line breaks before and after it are not part of it, nor are comments above it. `newline` is the line break that the
    file uses there, `column` the key's.
    """

    key: Node
    node: Node
    start: int
    end: int
    newline: str
    shown_path: str

    @property
    def line(self) -> int:
        return self.key.line

    @property
    def column(self) -> int:
        return self.key.column

    def error(self, node: Node, what: str, allowed: str, next_action: str = "Mend this line.") -> LorafleetError:
        """A fault of something inside the block."""
        return LorafleetError(
            what, where=f"{self.shown_path}:{node.line}", field="release", allowed=allowed, next_action=next_action
        )


def find(text: str, shown_path: str) -> Block:
    """The block of a text that is valid YAML (lorafleet.stackfile has read it).

    Raises:
        LorafleetError: there is none, or it uses what can't be edited in place.
    """
    outer = [tree.parse(text)]
    key: Node | None = None
    for depth, name in enumerate(PATH):
        parent = outer[-1]
        entry = parent.entry(name) if parent is not None else None
        if parent is None or entry is None:
            raise LorafleetError(
                f"there is no {dotted(PATH[: depth + 1])} in this file",
                where=f"{shown_path}:{parent.line if parent else 1}",
                allowed="a `release` block below config, serving:fleet",
                next_action="Copy the block from stacks/Pulumi.local.yaml; the pins in it are replaced.",
            )
        key, value = entry
        outer.append(value)
    parent, node = outer[-2], outer[-1]
    assert key is not None and parent is not None and node is not None
    end = node.end if parent.flow else line_end(text, node.end)
    block = Block(key, node, key.start, end, _newline(text, key.start), shown_path)
    for each in outer:
        if each is not None and (each.marked or each.kind == "alias"):
            raise _marked(block, each)
    _check(block, text)
    return block


def line_start(text: str, position: int) -> int:
    return max(text.rfind("\n", 0, position), text.rfind("\r", 0, position)) + 1


def line_end(text: str, position: int) -> int:
    """Where the line ends that `position` is on, before its line break."""
    found = re.compile(r"[\r\n]").search(text, position)
    return found.start() if found else len(text)


def after_break(text: str, position: int) -> int:
    """The start of the next line, for the end of a line; the text's end if there is none."""
    return position + (2 if text.startswith("\r\n", position) else 1 if position < len(text) else 0)


def _newline(text: str, position: int) -> str:
    found = re.compile(r"\r\n|\r|\n").search(text, position) or re.compile(r"\r\n|\r|\n").search(text)
    return found.group() if found else "\n"


def _check(block: Block, text: str) -> None:
    if block.node.kind != "map":
        raise block.error(block.node, "the release is not a mapping", "the keys baseModel, adapters, image, canaries")
    for node in (block.key, *block.node.walk()):
        if node.marked or node.kind == "alias":
            raise _marked(block, node)
        if node.kind == "list":
            raise block.error(node, "there is a list in the release", "names with digests")
        if node.style in ("|", ">"):
            raise block.error(node, "a value of the release is a block text (| or >)", "a value behind its key")
        for key, _ in node.entries:
            before = text[line_start(text, key.start) : key.start].rstrip()
            if before.endswith("?"):
                raise block.error(key, "a key of the release is written with a question mark", "`key: value`")


def _marked(block: Block, node: Node) -> LorafleetError:
    return block.error(
        node,
        "the release uses an anchor (&), an alias (*) or a tag (!)",
        "plain values: what is changed here must not change anything elsewhere",
        "Write the values out in full.",
    )
