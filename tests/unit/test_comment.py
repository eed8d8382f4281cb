"""The comment on a preview: what recorded plans become, and what must hold for any plan."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lorafleet import comment
from lorafleet.errors import LorafleetError
from tools.ci.recording import cases, record

CASES = sorted(folder.name for folder in record.GOLDEN.iterdir() if folder.is_dir())
SECRETS = ("a-very-secret-value", "-geheim", "it-was-secret-once", "it-was-plain-once", "not-marked-but-so-named")


@pytest.mark.parametrize("name", CASES)
def test_recorded_plan(name: str) -> None:
    folder = record.GOLDEN / name
    files = sorted(folder.glob("expected*.md"), key=lambda file: (len(file.name), file.name))
    assert record.render(folder) == [file.read_text() for file in files]


def test_every_recorded_case_is_there() -> None:
    assert sorted([*cases.CASES, *record.LOCAL_CASES]) == CASES and len(CASES) >= 8


@pytest.mark.parametrize("name", CASES)
def test_recorded_plan_shows_no_secret(name: str) -> None:
    text = "".join(record.render(record.GOLDEN / name))
    assert not [secret for secret in SECRETS if secret in text]


def test_the_secret_case_would_show_them() -> None:
    """The values lie in the recorded plan where the engine does not know them to be secret any more."""
    recorded = (record.GOLDEN / "secret" / "preview.json").read_text()
    assert "it-was-secret-once" in recorded and "not-marked-but-so-named" in recorded


@pytest.mark.parametrize("name", CASES)
def test_events_alone_tell_the_same_of_what_is_grave(name: str) -> None:
    """A preview that crashed leaves no document, only its events."""
    log = record.GOLDEN / name / "events.jsonl"
    if not log.exists():
        return
    events = [json.loads(line) for line in log.read_text().splitlines()]
    whole = comment.read_plan(json.loads((record.GOLDEN / name / "preview.json").read_text()), events)
    alone = comment.read_plan(None, events)
    assert [(each.urn, each.kind, each.note) for each in alone.changes] == [
        (each.urn, each.kind, each.note) for each in whole.changes
    ]
    assert alone.rollouts == whole.rollouts


# -- plans of any size ---------------------------------------------------------------------------------------


def step(op: str, name: str, own_type: str = "lorafleet:example:Disk", **more: Any) -> dict[str, Any]:
    return {"op": op, "urn": f"urn:pulumi:prod::serving::{own_type}::{name}", **more}


def changed(op: str, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """A step in the form that the recorded ones have."""
    replaces = "-replace" if op == "replace" else ""
    return step(
        op,
        name,
        oldState={"inputs": dict(before), "outputs": dict(before)},
        newState={"inputs": dict(after)},
        replaceReasons=list(after) if replaces else None,
        detailedDiff={key: {"kind": f"update{replaces}", "inputDiff": True} for key in after},
    )


def any_plan(seed: int) -> dict[str, Any]:
    """A plan with up to some thousand resources, names and values of all kinds of characters."""
    chance = random.Random(seed)
    alphabet = "abcdefgh-_. `*|<>[]()@#:\\/\"'$&\n\t한글é\u202e\u200b🙂"

    def text(longest: int) -> str:
        return "".join(chance.choice(alphabet) for _ in range(chance.randint(1, longest)))

    steps: list[dict[str, Any]] = []
    for number in range(chance.choice((0, 1, 5, 60, 900, 3000))):
        name = f"{number}{text(chance.choice((5, 40, 110)))}"
        op = chance.choice(("replace", "delete", "update", "create", "same"))
        if op in ("replace", "update"):
            steps.append(changed(op, name, {text(20): text(400)}, {text(20): text(400), "labels": {text(9): text(9)}}))
        elif op == "create":
            steps.append(step(op, name, newState={"inputs": {"note": text(900)}}))
        else:
            steps.append(step(op, name, oldState={"inputs": {"note": text(9)}}))
    diagnostics = [{"severity": "warning", "message": text(3000)} for _ in range(chance.choice((0, 1, 30)))]
    return {"steps": steps, "diagnostics": diagnostics, "changeSummary": {"same": 3}}


@pytest.mark.parametrize("seed", range(30))
def test_every_replacement_and_deletion_is_told_within_the_limit(seed: int) -> None:
    plan = any_plan(seed)
    status = random.Random(seed).choice((0, 0, 7, 1, 255))
    limit = random.Random(seed).choice((2_000, 10_000, comment.LIMIT_BYTES))
    pages = comment.pages("prod", plan, None, status, said="it broke " * seed, limit_bytes=limit)
    assert all(len(page.encode()) <= limit for page in pages)
    told = [line for page in pages for line in page.splitlines() if re.match(r"> - \*\*(replaced|deleted)\*\* ", line)]
    wanted = [each for each in plan["steps"] if each["op"] in ("replace", "delete")]
    assert len(told) == len(wanted)
    for each in wanted:
        name = shown_name(each["urn"].split("::", 3)[3])
        word = {"replace": "replaced", "delete": "deleted"}[each["op"]]
        assert any(line.startswith(f"> - **{word}** ") and name in line for line in told), name
    assert pages == comment.pages("prod", plan, None, status, said="it broke " * seed, limit_bytes=limit)


def shown_name(name: str) -> str:
    """How a name of at most 120 characters must stand in the comment: as it is, but in one visible line."""
    escapes = {"\n": "\\n", "\t": "\\t", "\u202e": "\\u202e", "\u200b": "\\u200b"}
    return "".join(escapes.get(character, character) for character in name)[:100]


def test_several_pages_are_found_again_by_their_markers() -> None:
    plan = {"steps": [step("delete", f"{number:05}-{'x' * 60}") for number in range(2000)]}
    pages = comment.pages("prod", plan, None, 0)
    assert len(pages) > 1
    for number, page in enumerate(pages, start=1):
        assert page.startswith(comment.marker("prod", number) + "\n")
    assert len({comment.marker("prod", number) for number in range(1, 9)}) == 8


# -- what texts of strangers become --------------------------------------------------------------------------


def outside_of_code(page: str) -> str:
    """What GitHub would read as Markdown: the page without its code blocks and code spans (CommonMark 4.5, 6.1)."""
    kept: list[str] = []
    fence = ""
    for line in page.splitlines():
        bare = re.sub(r"^(> ?)+", "", line)
        opening = re.match(r"(`{3,})", bare)
        if fence:
            if re.fullmatch(rf"`{{{len(fence)},}}\s*", bare):
                fence = ""
        elif opening and "`" not in bare[len(opening.group()) :]:
            fence = opening.group()
        else:
            kept.append(re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", bare))
    assert not fence, "a code block is not ended"
    return "\n".join(kept)


def hostile() -> Iterator[str]:
    yield from (
        "@octocat",
        "<img src=x>",
        "</details>",
        "[x](https://evil.example)",
        "https://evil.example",
        "#1",
        "-->",
    )
    yield from (
        "```",
        "``",
        "`",
        "````diff",
        "\n```\n@octocat",
        "\r\n# head",
        "`` @octocat `",
        "\u2028@octocat",
        "|a|b|",
    )
    yield from ("<!-- lorafleet:preview:prod -->", "&lt;", "\\`@octocat`", "![](https://evil.example/x.png)", "~~~\nx")


@pytest.mark.parametrize("text", list(hostile()))
def test_nothing_of_a_stranger_becomes_markup(text: str) -> None:
    manifest = {
        "adapters": {text: f"sha256:{text}", f"x{text}": text},
        "canaries": {text: {"digest": text, "weight": text}},
    }
    plan = {
        "steps": [
            changed("replace", text, {text: text, "a": 1}, {text: f"{text}{text}", "a": text}),
            changed("update", f"u{text}", {"note": text}, {"note": f"x{text}"}),
            step("create", f"c{text}", newState={"inputs": {text: {text: [text]}}}),
            step("delete", f"d{text}", own_type=f"a:b:C{text.replace(':', '')}"),
            step("create", "fleet", own_type="lorafleet:artifacts:Manifest", newState={"inputs": manifest}),
        ],
        "diagnostics": [
            {"severity": severity, "message": text, "urn": f"a::b::c::{text}"} for severity in ("error", "warning")
        ],
    }
    events = [
        {"policyEvent": {"message": text, "policyName": text, "enforcementLevel": "mandatory", "resourceUrn": text}}
    ]
    for status in (0, 1):
        (page,) = comment.pages("prod", plan, events, status, said=text)
        rest = outside_of_code(page).removeprefix(comment.marker("prod"))
        for part in ("octocat", "evil", "<img", "<!--", "`", "#1", "](", "|", "head", "&lt;"):
            assert part not in rest, f"{part!r} in {rest}"
        assert rest.count("<details>") == rest.count("</details>") == rest.count("<summary>")


# -- secrets -------------------------------------------------------------------------------------------------

SIGNED = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "opaque-text"}


@pytest.mark.parametrize("mark", ["[secret]", SIGNED])
@pytest.mark.parametrize("kind", ["update", "replace"])
def test_a_value_that_is_secret_on_one_side_is_hidden_on_both(mark: Any, kind: str) -> None:
    before = {"a": mark, "b": {"deep": ["plain-b", "it"]}, "c": [mark], "d": "plain-d"}
    after = {"a": "plain-a", "b": {"deep": [mark, "it"]}, "c": ["plain-c"], "d": "plain-e"}
    page = "".join(comment.pages("prod", {"steps": [changed(kind, "disk", before, after)]}, None, 0))
    assert not [word for word in ("plain-a", "plain-b", "plain-c", "opaque-text") if word in page]
    assert "plain-d" in page and "plain-e" in page and "[secret]" in page


def test_outputs_that_a_resource_calls_secret_are_hidden() -> None:
    made = step(
        "update",
        "disk",
        oldState={"outputs": {"x": "plain-1"}, "additionalSecretOutputs": ["x"]},
        newState={"outputs": {"x": "plain-2"}},
        detailedDiff={"x": {"kind": "update", "inputDiff": False}},
    )
    page = "".join(comment.pages("prod", {"steps": [made]}, None, 0))
    assert "plain-" not in page and "x: [secret]" in page


def test_keys_in_messages_are_hidden() -> None:
    key = "hf_" + "aB3" * 12
    plan = {"diagnostics": [{"severity": "error", "message": f"asked with {key} and ({key}), token={key}"}]}
    pages = [*comment.pages("prod", plan, None, 1), *comment.pages("prod", None, None, 1, said=f"used '{key}'")]
    assert key not in "".join(pages) and "asked with [hidden" in pages[0]


# -- the rest ------------------------------------------------------------------------------------------------


def test_a_deletion_that_an_interrupted_replacement_left_is_told_from_the_events() -> None:
    """The document of `preview --json` does not have it."""
    events = [{"resourcePreEvent": {"metadata": step("delete-replaced", "old", old={"inputs": {}})}}]
    (page,) = comment.pages("prod", {"steps": [step("same", "other")]}, events, 0)
    assert "**deletes** `old`" in page and "left over from an earlier replacement" in page


def test_policies_are_told() -> None:
    def violation(level: str) -> dict[str, Any]:
        return {"policyEvent": {"message": f"too dear: {level}", "policyName": "budget", "enforcementLevel": level}}

    (page,) = comment.pages("prod", {}, [violation("mandatory"), violation("advisory")], 1)
    assert "too dear: mandatory" in page.split("<details>")[0]
    assert "too dear: advisory" in page.split("<details>")[1]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("error: no stack named 'prod' found", "pulumi stack init"),
        ("error: passphrase must be set with PULUMI_CONFIG_PASSPHRASE", "KMS"),
        ("google: could not find default credentials", "service account"),
        ("", "did not say why"),
    ],
)
def test_a_failure_says_what_to_do(said: str, wanted: str) -> None:
    (page,) = comment.pages("prod", None, None, 255, said=said)
    assert "**failed**" in page and wanted in page


def test_equal_beginnings_of_long_values_are_left_out() -> None:
    plan = {"steps": [changed("update", "disk", {"note": "x" * 5000 + "old"}, {"note": "x" * 5000 + "new"})]}
    (page,) = comment.pages("prod", plan, None, 0)
    assert 'old"' in page and 'new"' in page and len(page) < 1000


@pytest.mark.parametrize("stack", ["", "a b", "a-->", "a/b", "x" * 101, "a\nb"])
def test_names_that_no_stack_has_are_refused(stack: str) -> None:
    with pytest.raises(LorafleetError, match="no name of a stack"):
        comment.pages(stack, {}, None, 0)


@pytest.mark.parametrize("preview", [{"steps": 3}, {"steps": [{"op": "same"}]}, {"steps": [{"op": 1, "urn": []}]}])
def test_what_the_engine_does_not_write_is_refused(preview: dict[str, Any]) -> None:
    with pytest.raises(LorafleetError, match="not the engine's account"):
        comment.pages("prod", preview, None, 0)


@pytest.mark.parametrize("links", [{"run": "javascript:x"}, {"run": "https://a b"}, {"commit": "`x`"}])
def test_links_are_addresses_and_commits(links: dict[str, str]) -> None:
    with pytest.raises(LorafleetError):
        comment.Links(**links)


def test_no_recorded_plan_carries_the_machine() -> None:
    for file in Path(record.GOLDEN).rglob("*"):
        if file.is_file() and file.suffix != ".gz":
            assert not re.search(r"/(?:tmp|home|root|Users)/|sourcePosition|timestamp", file.read_text()), file
