"""Where everything of a YAML text stands: a tree of nodes with character offsets, from PyYAML's events.

`yaml.compose` would do, but for two things that an editor has to see: aliases (it puts the anchored node in their
place) and tags that were written out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import yaml


@dataclass(slots=True)
class Node:
    """A value: `text[start:end]`. `style` is a scalar's quote (`'`, `"`), `|`, `>`, or None for a plain one."""

    kind: Literal["scalar", "map", "list", "alias"]
    start: int
    end: int
    line: int
    column: int
    value: str = ""
    style: str | None = None
    flow: bool = False
    marked: bool = False
    entries: list[tuple[Node, Node]] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)

    def entry(self, key: str) -> tuple[Node, Node] | None:
        """A mapping's entry."""
        return next((entry for entry in self.entries if entry[0].kind == "scalar" and entry[0].value == key), None)

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for key, value in self.entries:
            yield from key.walk()
            yield from value.walk()
        for item in self.items:
            yield from item.walk()


def parse(text: str) -> Node | None:
    """The tree of the first document; None if there is nothing in it. Raises yaml.YAMLError."""
    events = iter(yaml.parse(text, Loader=yaml.SafeLoader))
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            first = next(events)
            return _node(first, events)
    return None


def _node(event: yaml.Event, events: Iterator[yaml.Event]) -> Node:
    mark, end = event.start_mark, event.end_mark
    assert mark is not None and end is not None  # only events that were made by hand have none
    node = Node("alias", mark.index, end.index, mark.line + 1, mark.column)
    if isinstance(event, yaml.AliasEvent):
        return node
    node.marked = bool(getattr(event, "anchor", None)) or getattr(event, "tag", None) is not None
    if isinstance(event, yaml.ScalarEvent):
        node.kind, node.value, node.style = "scalar", event.value, event.style
        return node
    node.flow = bool(getattr(event, "flow_style", False))
    if isinstance(event, yaml.MappingStartEvent):
        node.kind = "map"
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = _node(event, events)
            node.entries.append((key, _node(next(events), events)))
    else:
        node.kind = "list"
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            node.items.append(_node(event, events))
    # The mark of a block's end stands behind the comments that follow it; its content ends with its last value.
    parts = [part for entry in node.entries for part in entry] + node.items
    if node.flow and event.end_mark is not None:
        node.end = event.end_mark.index
    else:
        node.end = max((part.end for part in parts), default=node.end)
    return node
