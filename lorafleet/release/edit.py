"""Changing a release block in its text: values are replaced where they stand, everything else keeps its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lorafleet.release.block import Block, after_break, line_end, line_start
from lorafleet.release.tree import Node
from lorafleet.release.words import scalar

Entry = tuple[Node, Node]


@dataclass(frozen=True, slots=True)
class Edit:
    """`text[start:end]` becomes `new`."""

    start: int
    end: int
    new: str


def edited(text: str, block: Block, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The whole text with `new` in its release block.

    Args:
        old: what the block holds now, as lorafleet.stackfile has read it.
        new: what it shall hold.

    Raises:
        LorafleetError: a mapping and a plain value stand against each other, or the style is beyond this editor.
    """
    edits = sorted(_Editor(text, block).mapping(block.node, old, new), key=lambda edit: (edit.start, edit.end))
    parts, position = [], 0
    for edit in edits:
        if edit.start < position:
            raise block.error(
                block.node,
                "the release block is written in a way that can't be changed in place",
                "plain YAML, as in stacks/Pulumi.local.yaml",
                "Write the block in the style of stacks/Pulumi.local.yaml, then run the command again.",
            )
        parts += [text[position : edit.start], edit.new]
        position = edit.end
    return "".join([*parts, text[position:]])


class _Editor:
    def __init__(self, text: str, block: Block) -> None:
        self.text, self.block = text, block
        self.step = 2 if block.node.flow else max(1, block.node.column - block.column)

    def mapping(self, node: Node, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Edit]:
        # A key without a value (null) counts as not being there, and is filled in when it is wanted.
        kept = [entry for entry in node.entries if entry[0].value in new]
        gone = [entry for entry in node.entries if entry[0].value not in new and old.get(entry[0].value) is not None]
        added = {key: value for key, value in new.items() if key not in old}
        for key, value in kept:
            yield from self._value(value, old[key.value], new[key.value])
        if not gone and not added:
            return
        if len(gone) == len(node.entries):
            yield self._all(node, added)
        elif node.flow:
            yield from self._flow_removals(node, gone)
            yield from self._flow_insertion(node, [entry for entry in node.entries if entry not in gone], added)
        else:
            last = max(index for index, entry in enumerate(node.entries) if entry not in gone)
            position = line_end(self.text, node.entries[last][1].end)
            lines = self._lines(node, added)
            yield Edit(position, position, "".join(self.block.newline + line for line in lines))
            yield from (
                self._block_removal(node.entries[index]) for index in range(last) if node.entries[index] in gone
            )
            # What follows the last entry that stays goes with all that stands between: where the block ends must not
            # depend on comments and empty lines inside it.
            yield Edit(position, line_end(self.text, node.entries[-1][1].end), "")

    def _value(self, node: Node, old: Any, new: Any) -> Iterator[Edit]:
        if isinstance(new, Mapping):
            if node.kind != "map":
                raise self.block.error(node, "a mapping is needed here", "a mapping, `{}` if it is empty")
            yield from self.mapping(node, old, new)
        elif node.kind == "map":
            raise self.block.error(node, "a single value is needed here", "a digest, an image or a number")
        elif (type(old), old) != (type(new), new):
            text = scalar(new, node.style)
            yield Edit(node.start, node.end, text if node.end > node.start else f" {text}")

    # Blocks: an entry has lines of its own.

    def _block_removal(self, entry: Entry) -> Edit:
        text, (key, value) = self.text, entry
        start = line_start(text, key.start)
        # Comment lines right above, as far in as the key, are about it.
        while start > self.block.start:
            above = line_start(text, start - 1 - text.startswith("\r\n", start - 2))
            line = text[above:start].rstrip("\r\n")
            if above <= self.block.start or line.strip()[:1] != "#" or len(line) - len(line.lstrip()) != key.column:
                break
            start = above
        return Edit(start, after_break(text, line_end(text, value.end)), "")

    def _lines(self, node: Node, added: Mapping[str, Any]) -> list[str]:
        """The lines of new entries of a block."""
        column = node.entries[0][0].column
        lines: list[str] = []
        flow = any(value.flow for _, value in node.entries)
        for key, value in added.items():
            lines += self._entry_lines(node, key, value, column, flow)
        return lines

    def _entry_lines(self, node: Node, key: str, value: Any, column: int, flow: bool) -> Iterator[str]:
        start = " " * column + scalar(key, node.entries[-1][0].style)
        if isinstance(value, Mapping) and not flow:
            yield f"{start}:"
            for inner, each in value.items():
                yield from self._entry_lines(node, inner, each, column + self.step, flow)
        else:
            yield f"{start}: {self._inline(node, value)}"

    # Flow style: {a: 1, b: 2}, on one line or with a line for each entry.

    def _flow_removals(self, node: Node, gone: list[Entry]) -> Iterator[Edit]:
        text, entries = self.text, node.entries
        index = 0
        while index < len(entries):
            if entries[index] not in gone:
                index += 1
                continue
            first = index
            while index < len(entries) and entries[index] in gone:
                index += 1
            start, end = entries[first][0].start, entries[index - 1][1].end
            if index < len(entries):
                yield Edit(start, entries[index][0].start, "")
                continue
            before = entries[first - 1][1].end
            if "\n" not in text[before:start] and "\r" not in text[before:start]:
                yield Edit(before, end, "")
                continue
            # Its own lines go; the comma of the entry before it stays, which YAML allows.
            stop = line_end(text, end)
            bracket = text[end:stop].partition("#")[0].find("}")
            yield Edit(line_end(text, before), stop, "") if bracket < 0 else Edit(start, end + bracket, "")

    def _flow_insertion(self, node: Node, left: list[Entry], added: Mapping[str, Any]) -> Iterator[Edit]:
        if not added:
            return
        text, (key, value) = self.text, left[-1]
        pairs = [self._pair(node, name, each) for name, each in added.items()]
        rest = text[value.end : node.end - 1]
        comma = rest.index(",") + 1 if rest.lstrip().startswith(",") else 0
        if (left[-1] != node.entries[-1]) or line_start(text, key.start) == line_start(text, node.start):
            # On one line, or others behind it go at the same time: right behind it.
            yield Edit(value.end, value.end, "".join(f", {pair}" for pair in pairs))
            return
        indent = self.block.newline + " " * key.column
        at = line_end(text, value.end)
        if "}" in text[value.end : at].partition("#")[0]:  # the bracket stands behind the last entry
            at = value.end + comma
        if not comma:
            yield Edit(value.end, value.end, ",")
        yield Edit(at, at, "".join(indent + pair + ("," if comma or pair != pairs[-1] else "") for pair in pairs))

    def _all(self, node: Node, added: Mapping[str, Any]) -> Edit:
        """None of the former entries stays."""
        if node.flow:
            pairs = ", ".join(self._pair(node, name, each) for name, each in added.items())
            if not node.entries:
                return Edit(node.start, node.end, f"{{{pairs}}}")
            return Edit(node.entries[0][0].start, node.entries[-1][1].end, pairs)
        if not added:
            raise self.block.error(node, "nothing would be left here", "at least one key")
        lines = self.block.newline.join(self._lines(node, added))
        return Edit(node.entries[0][0].start, node.entries[-1][1].end, lines.lstrip(" "))

    def _pair(self, node: Node, key: str, value: Any) -> str:
        style = (node.entries[-1][0] if node.entries else self.block.key).style
        return f"{scalar(key, style)}: {self._inline(node, value)}"

    def _inline(self, node: Node, value: Any) -> str:
        if isinstance(value, Mapping):
            return "{" + ", ".join(self._pair(node, key, each) for key, each in value.items()) + "}"
        # The style of the nearest digest or image, best of one in the same mapping.
        near = [each for _, below in node.entries for each in below.walk()]
        styles = [each.style for each in [*self.block.node.walk(), *near] if "sha256:" in each.value]
        return scalar(value, styles[-1] if styles else None)
