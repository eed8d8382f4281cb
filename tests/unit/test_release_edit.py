"""The release block is changed in its text: what is wanted stands there, everything else keeps its bytes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from lorafleet.errors import LorafleetError
from lorafleet.release import document, pins
from lorafleet.release.differences import unified
from lorafleet.release.document import StackDocument
from lorafleet.release.words import scalar

A, B, C = (f"sha256:{digit * 64}" for digit in "abc")
REVISION = "0123456789abcdef0123456789abcdef01234567"
IMAGE = "europe-docker.pkg.dev/project/images/serving@" + B


def opened(root: Path, text: str | bytes) -> StackDocument:
    path = root / "stacks" / "Pulumi.prod.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return document.read(root, "prod")


def stack(block: str, before: str = "# the file\nconfig:\n  other:a: 1\n  serving:fleet:\n    x: {}\n") -> str:
    return before + block + "    # below\n    z: [1, 2]\nencryptionsalt: v1:x # salt\n"


BLOCK = """\
    # above
    release: # the pins
      baseModel:
        digest: %s # tested in June
      adapters:
        # plain words
        easycontract:   '%s'  # first

        "checklist": "%s"
""" % (A, A, A)  # noqa: UP031 (braces stand for themselves here)


def release(adapters: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"baseModel": {"digest": A}, "adapters": adapters, **more}


def changed_lines(old: str, new: str) -> tuple[list[str], list[str]]:
    before, after = old.splitlines(), new.splitlines()
    return [line for line in before if line not in after], [line for line in after if line not in before]


def test_values_are_replaced_where_they_stand(tmp_path: Path) -> None:
    found = opened(tmp_path, stack(BLOCK))
    new = found.with_release(release({"easycontract": B, "checklist": C})).decode()
    assert new == stack(BLOCK).replace(f"'{A}'", f"'{B}'").replace(f'"{A}"', f'"{C}"')


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_line_ends_and_byte_order_mark_stay(tmp_path: Path, newline: str) -> None:
    text = b"\xef\xbb\xbf" + stack(BLOCK).replace("\n", newline).encode()
    found = opened(tmp_path, text)
    wanted = release({"easycontract": B, "checklist": A, "tone": C})
    new = found.with_release(wanted)
    assert new.startswith(b"\xef\xbb\xbf#")
    line = f'        "tone": "{C}"{newline}'.encode()
    assert line in new
    assert new.replace(line, b"").replace(B.encode(), A.encode()) == text


def test_new_keys_come_behind_the_last_one_in_its_style(tmp_path: Path) -> None:
    found = opened(tmp_path, stack(BLOCK))
    wanted = release(
        {"easycontract": A, "checklist": A, "on": B, "2026-01-01": B},
        image=IMAGE,
        canaries={"checklist": {"digest": C, "weight": 10}},
    )
    gone, come = changed_lines(stack(BLOCK), found.with_release(wanted).decode())
    assert not gone
    assert come == [
        f'        "on": "{B}"',
        f'        "2026-01-01": "{B}"',
        f'      image: "{IMAGE}"',
        "      canaries:",
        "        checklist:",
        f'          digest: "{C}"',
        "          weight: 10",
    ]


def test_a_key_goes_with_its_line_and_the_comment_right_above_it(tmp_path: Path) -> None:
    found = opened(tmp_path, stack(BLOCK))
    gone, come = changed_lines(stack(BLOCK), found.with_release(release({"checklist": A})).decode())
    assert not come and gone == ["        # plain words", f"        easycontract:   '{A}'  # first"]
    gone, come = changed_lines(stack(BLOCK), found.with_release(release({"easycontract": A})).decode())
    assert not come and gone == ["", f'        "checklist": "{A}"']


def test_a_digest_can_become_a_revision(tmp_path: Path) -> None:
    found = opened(tmp_path, stack(BLOCK))
    wanted = {"baseModel": {"revision": REVISION}, "adapters": {"easycontract": A, "checklist": A}}
    assert changed_lines(stack(BLOCK), found.with_release(wanted).decode()) == (
        [f"        digest: {A} # tested in June"],
        [f"        revision: {REVISION} # tested in June"],
    )


@pytest.mark.parametrize(
    ("old", "adapters", "new"),
    [
        ("{easycontract: A, checklist: A}", "easycontract=B checklist=A", "{easycontract: B, checklist: A}"),
        ("{easycontract: A, checklist: A}", "checklist=A", "{checklist: A}"),
        ("{easycontract: A, checklist: A}", "easycontract=A", "{easycontract: A}"),
        ("{easycontract: A, b: A, c: A}", "easycontract=A", "{easycontract: A}"),
        ("{a: A, b: A, c: A}", "a=A c=A d=B", "{a: A, c: A, d: B}"),
        ("{a: A, b: A}", "a=A d=B", "{a: A, d: B}"),
        ("{a: A}", "b=B", "{b: B}"),
        ("{ 'a': 'A', }", "a=A b=B", "{ 'a': 'A', 'b': 'B', }"),
        ('{"a":"A"}', "a=A b=B", '{"a":"A", "b": "B"}'),
        ("{\n  a: A, # one\n  b: A # two\n}", "a=A b=A c=C", "{\n  a: A, # one\n  b: A, # two\n  c: C\n}"),
        ("{\n  a: A,\n  b: A, # two\n}", "a=A b=A c=C", "{\n  a: A,\n  b: A, # two\n  c: C,\n}"),
        ("{\n  a: A, # one\n  b: A # two\n}", "a=A", "{\n  a: A, # one\n}"),
        ("{\n  a: A, # one\n  b: A # two\n}", "b=A", "{\n  b: A # two\n}"),
        ("{a: A,\n  b: A}", "a=A", "{a: A,\n  }"),
        ("{a: A,\n  b: A}", "a=A b=A c=C", "{a: A,\n  b: A,\n  c: C}"),
        ("{\n  a: A # one\n  ,}", "a=A b=B", "{\n  a: A, # one\n  b: B\n  ,}"),
        ("{}", "a=A", "{a: A}"),
    ],
)
def test_flow_style(tmp_path: Path, old: str, adapters: str, new: str) -> None:
    def text(flow: str) -> str:
        flow = flow.replace("\n", "\n           ")
        for letter, digest in (("A", A), ("B", B), ("C", C)):
            flow = flow.replace(letter, digest)
        return stack(f"    release:\n      baseModel: {{digest: {A}}}\n      adapters: {flow} # flow\n")

    digests = {"A": A, "B": B, "C": C}
    wanted = {name: digests[letter] for name, letter in (pair.split("=") for pair in adapters.split())}
    found = opened(tmp_path, text(old))
    assert found.with_release(release(wanted)).decode() == text(new)


def test_everything_in_one_line_of_json(tmp_path: Path) -> None:
    text = (
        f'{{"config": {{"serving:fleet": {{"release": {{"adapters": {{"a": "{A}"}}, "baseModel": {{}}}}, "z": 1}}}}}}'
    )
    found = opened(tmp_path, text)
    assert found.block_text == f'"release": {{"adapters": {{"a": "{A}"}}, "baseModel": {{}}}}'
    new = found.with_release(release({"a": B})).decode()
    assert new == text.replace(A, B).replace('"baseModel": {}', f'"baseModel": {{"digest": "{A}"}}')


def test_no_line_break_at_the_end(tmp_path: Path) -> None:
    text = f"config:\n  serving:fleet:\n    release:\n      baseModel: {{digest: {A}}}\n      adapters:\n"
    text += f"        a: {A}\n        b: {A}"
    found = opened(tmp_path, text)
    assert found.with_release(release({"a": A})).decode() == text.rpartition("\n")[0]
    assert found.with_release(release({"a": A, "b": A, "c": B})).decode() == f"{text}\n        c: {B}"
    assert found.with_release(release({"a": A, "c": B})).decode() == text.rpartition("\n")[0] + f"\n        c: {B}"


def test_a_key_without_value_is_filled_in(tmp_path: Path) -> None:
    text = stack(BLOCK + "      image:\n")
    found = opened(tmp_path, text)
    wanted = release({"easycontract": A, "checklist": A})
    assert found.with_release(wanted).decode() == text
    assert found.with_release({**wanted, "image": IMAGE}).decode() == text.replace("image:", f"image: {IMAGE}")


REFUSED = {
    "an anchor on a value": (f"    release:\n      adapters: {{a: &x {A}}}\n", "anchor"),
    "an anchor on the block": (f"    release: &x\n      adapters: {{a: {A}}}\n", "anchor"),
    "an alias": (f"    y: &x {A}\n    release:\n      adapters: {{a: *x}}\n", "anchor"),
    "the block is an alias": ("    y: &x {}\n    release: *x\n", "anchor"),
    "a tag": (f"    release:\n      adapters: {{a: !!str {A}}}\n", "tag"),
    "a block text": (f"    release:\n      adapters:\n        a: >-\n          {A}\n", "block text"),
    "a question mark": (f"    release:\n      adapters:\n        ? a\n        : {A}\n", "question mark"),
    "a list": (f"    release:\n      adapters: [{A}]\n", "list"),
    "a text": ("    release: hello\n", "not a mapping"),
    "nothing": ("    release:\n", "not a mapping"),
    "no release": ("    y: 1\n", "no release in"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_edited_in_place_is_refused(tmp_path: Path, case: str) -> None:
    block, what = REFUSED[case]
    with pytest.raises(LorafleetError, match=what) as caught:
        opened(tmp_path, stack(block))
    assert (
        caught.value.where.startswith("stacks/Pulumi.prod.yaml:") and caught.value.allowed and caught.value.next_action
    )


def test_a_mapping_in_the_place_of_a_value(tmp_path: Path) -> None:
    for block in (f"release: {{adapters: {{a: {{b: {A}}}}}}}", f"release: {{adapters: {A}}}"):
        found = opened(tmp_path, stack(f"    {block}\n"))
        with pytest.raises(LorafleetError, match="needed here"):
            found.with_release(release({"a": B}))


def test_the_difference_has_the_lines_of_the_file_and_none_outside_the_block(tmp_path: Path) -> None:
    found = opened(tmp_path, stack(BLOCK))
    new = found.with_release(release({"easycontract": A, "checklist": B})).decode()
    assert unified(found.text, found.text, found.block) == ""
    assert unified(found.text, new, found.block).splitlines() == [
        "--- a/stacks/Pulumi.prod.yaml",
        "+++ b/stacks/Pulumi.prod.yaml",
        "@@ -11,4 +11,4 @@",
        "         # plain words",
        f"         easycontract:   '{A}'  # first",
        " ",
        f'-        "checklist": "{A}"',
        f'+        "checklist": "{B}"',
    ]
    assert stack(BLOCK).splitlines()[13] == f'        "checklist": "{A}"'


@pytest.mark.parametrize(
    ("text", "style", "written"),
    [
        ("abc", None, "abc"),
        (A, None, A),
        ("1" * 40, None, f'"{"1" * 40}"'),
        ("12e45", None, '"12e45"'),
        ("0b01", None, '"0b01"'),
        ("true", None, '"true"'),
        ("No", None, '"No"'),
        ("12:30", None, '"12:30"'),
        ("it's", "'", "'it''s'"),
        ('a"b', '"', '"a\\"b"'),
        ("a: b", None, '"a: b"'),
        ("#x", None, '"#x"'),
        ("", None, '""'),
    ],
)
def test_scalars(text: str, style: str | None, written: str) -> None:
    assert scalar(text, style) == written


def test_one_release_has_one_digest_in_every_style() -> None:
    plain = {"adapters": {"b": A, "a": B}, "baseModel": {"digest": A}}
    full = {"baseModel": {"revision": None, "digest": A}, "image": None, "adapters": {"a": B, "b": A}, "canaries": {}}
    assert pins.digest(plain) == pins.digest(full)
    assert pins.digest({**plain, "image": IMAGE}) != pins.digest(plain)


# Any style: a generator of stack files with a release, and of what it shall become.


class Style:
    """Writes a release block in a random style."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.newline = chance.choice(["\n", "\n", "\r\n"])
        self.step = chance.choice([1, 2, 2, 3, 4, 8])

    def digest(self) -> str:
        return "sha256:" + "".join(self.chance.choices("0123456789abcdef", k=64))

    def release(self) -> dict[str, Any]:
        pool = ["easycontract", "checklist", "a", "on", "null", "123", "1e3", "tone-2", "2026-01-01", "y", "x" * 63]
        names = self.chance.sample(pool, self.chance.randint(1, 5))
        base = {"digest": self.digest(), "revision": self.digest()[7:47]}
        keys = self.chance.choice([["digest"], ["revision"], ["revision", "digest"]])
        result: dict[str, Any] = {
            "baseModel": {key: base[key] for key in keys},
            "adapters": {name: self.digest() for name in names},
        }
        if self.chance.random() < 0.3:
            result["image"] = f"registry.example/images/serving@{self.digest()}"
        if self.chance.random() < 0.4:
            some = self.chance.sample(names, self.chance.randint(1, min(2, len(names))))
            result["canaries"] = {
                name: {"digest": self.digest(), "weight": self.chance.randint(1, 99)} for name in some
            }
        items = list(result.items())
        self.chance.shuffle(items)
        return dict(items)

    def scalar(self, value: object) -> str:
        return scalar(value, self.chance.choice([None, None, "'", '"'])) if isinstance(value, str) else str(value)

    def comment(self) -> str:
        return self.chance.choice(["", "", "", "  # ünï 주석 'x' \"y\" {z: 1}", " #"])

    def gap(self, indent: int) -> list[str]:
        return self.chance.choice([[], [], [], [""], [" " * indent + "# about the next"], ["# at the margin", ""]])

    def flow(self, value: object, indent: int) -> str:
        if not isinstance(value, dict):
            return self.scalar(value)
        if not value:
            return self.chance.choice(["{}", "{ }"])
        parts = [f"{self.scalar(key)}: {self.flow(inner, indent)}" for key, inner in value.items()]
        if self.chance.random() < 0.3:
            pad = self.newline + " " * (indent + self.step)
            lines = [
                part + ("," if n < len(parts) - 1 else self.chance.choice(["", ","])) for n, part in enumerate(parts)
            ]
            end = self.chance.choice([self.newline + " " * indent, ""])
            comments = [self.comment() if end or n < len(lines) - 1 else "" for n in range(len(lines))]
            return "{" + pad + pad.join(line + note for line, note in zip(lines, comments, strict=True)) + end + "}"
        inside = self.chance.choice(["", " "])
        return "{" + inside + ", ".join(parts) + self.chance.choice(["", "", ",", " ,"]) + inside + "}"

    def block(self, value: dict[str, Any], indent: int) -> list[str]:
        lines: list[str] = []
        for key, inner in value.items():
            lines += self.gap(indent)
            start = " " * indent + self.scalar(key) + ":"
            if isinstance(inner, dict) and self.chance.random() < 0.7:
                lines += [start + self.comment(), *self.block(inner, indent + self.step)]
            else:
                lines.append(start + self.chance.choice([" ", "   "]) + self.flow(inner, indent) + self.comment())
        return lines

    def file(self, release: dict[str, Any]) -> str:
        top = self.step
        rest = {"store": "file://.lorafleet/store", "adapters": {"easycontract": {}}}
        before = ["# head", "config:", f"{' ' * top}other:x: [1, 2]", f"{' ' * top}serving:fleet:{self.comment()}"]
        before += self.block(rest, 2 * top)
        after = self.gap(2 * top) + self.block({"router": {"port": 8100}}, 2 * top) + ["encryptionsalt: v1:x"]
        if self.chance.random() < 0.2:
            after = []
        whole = [*before, *self.block({"release": release}, 2 * top), *after]
        return self.newline.join(whole) + self.chance.choice([self.newline, "", self.newline * 2])


@pytest.mark.parametrize("seed", range(200))
def test_any_style_promoted_and_rolled_back(tmp_path: Path, seed: int) -> None:
    style = Style(random.Random(seed))
    former, wanted = style.release(), style.release()
    first = opened(tmp_path, style.file(former))
    assert pins.normalised(first.release) == pins.normalised(former)

    promoted = opened(
        tmp_path, first.with_release(wanted)
    )  # reads it again: it says what is wanted, and the rest stays
    assert pins.normalised(promoted.release) == wanted
    rest = len(first.text) - first.block.end
    assert promoted.text[: promoted.block.start] == first.text[: first.block.start]
    assert promoted.text[len(promoted.text) - rest :] == first.text[first.block.end :]
    assert promoted.with_release(wanted) == promoted.raw

    back = promoted.with_block(first.block_text, former)
    assert back == first.raw
