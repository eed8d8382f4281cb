"""The recorded plans: for each, the program that was brought up, and the one that is previewed afterwards."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

_HEAD = """
import pulumi
from pulumi import ComponentResource, Output, ResourceOptions
from providers import kit
from providers.kit.program import declare
from providers.example.resources import Disk, Socket
from providers.artifacts.resources import Manifest

def disk(name, **inputs):
    return declare(Disk, name, inputs)
"""


@dataclass(frozen=True)
class Case:
    """One recorded plan.

    before: program that is brought up first; empty for a new stack. after: program that is previewed.
    arguments: further arguments of `pulumi preview`. meanwhile: {id: what the platform has} that somebody changed in
    between, None for what somebody deleted. events: whether the events are kept too. packed: kept compressed.
    """

    before: str
    after: str
    arguments: tuple[str, ...] = ()
    meanwhile: Mapping[str, object] = field(default_factory=dict)
    events: bool = True
    packed: bool = False

    def programs(self) -> tuple[str, str]:
        """Both as whole files; the first is empty if there is none."""
        before, after = (textwrap.dedent(each).strip() for each in (self.before, self.after))
        return (f"{_HEAD}\n{before}\n" if before else "", f"{_HEAD}\n{after}\n")


def _digest(letter: str) -> str:
    return "sha256:" + letter * 64


def _manifest(adapters: Mapping[str, str], canaries: Mapping[str, object] | None = None) -> str:
    inputs = {"store": "gs://example-store", "adapters": dict(adapters), "canaries": canaries}
    return f"""
declare(Manifest, "fleet", {inputs!r})
disk("cache", size_gib=50)
"""


_NAMES = 250
_MANY_BEFORE = f"""
for number in range({_NAMES}):
    disk(f"disk-{{number:03}}", note=f"before {{number}} " + 40 * "it ", labels={{"team": "blue"}}, tags=["x", "y"])
"""
_MANY_AFTER = f"""
for number in range({_NAMES}):
    if number % 12 == 5:
        continue
    zone = "b" if number % 6 == 1 else "a"
    note = f"after {{number}} " + 40 * "is "
    disk(f"disk-{{number:03}}", zone=zone, note=note, labels={{"team": "red"}}, tags=["y", "z"])
"""

CASES: dict[str, Case] = {
    "create": Case(
        before="",
        after="""
            team = ComponentResource("example:index:Team", "team")
            data = declare(Disk, "data", {"size_gib": 20, "labels": {"team": "blue"}, "tags": ["a", "b"]},
                           ResourceOptions(parent=team))
            disk("secret-one", password=Output.secret("a-very-secret-value-1"), note="holds a secret")
            disk("behind", note=data.address.apply(lambda it: f"goes to {it}"))
        """,
    ),
    "update": Case(
        before="""
            disk("data", size_gib=20, labels={"team": "blue", "tier": "low"}, tags=["a", "b"], note="one\\ntwo")
            disk("other", settings={"nested": {"list": [1, 2, {"deep": True}]}})
            disk("same")
        """,
        after="""
            disk("data", size_gib=40, labels={"team": "red", "a.b c": "new"}, tags=["a", "c", "d"], note="one\\nthree")
            disk("other", settings={"nested": {"list": [1, 3, {"deep": False}]}}, note=300 * "long ")
            disk("same")
        """,
    ),
    "replace": Case(
        before='disk("data", zone="a", size_gib=20); disk("same")',
        after='disk("data", zone="b", size_gib=40); disk("same")',
    ),
    "delete-before-replace": Case(
        before="""
            front = declare(Socket, "front", {"zone": "a"})
            disk("behind", note=front.address)
        """,
        after="""
            front = declare(Socket, "front", {"zone": "b"})
            disk("behind", note=front.address)
        """,
    ),
    "delete": Case(before='disk("data", size_gib=20); disk("old", size_gib=5)', after='disk("data", size_gib=20)'),
    "secret": Case(
        before="""
            labels = {"pin": Output.secret("4711-geheim"), "team": "blue"}
            disk("data", password=Output.secret("a-very-secret-value-1"), labels=labels)
            disk("opened", note=Output.secret("it-was-secret-once"))
            disk("closed", note="it-is-plain-still")
        """,
        after="""
            labels = {"pin": Output.secret("4712-geheim"), "team": "blue"}
            disk("data", password=Output.secret("a-very-secret-value-2"), labels=labels)
            disk("opened", note="it-was-secret-once and is not any more")
            disk("closed", note=Output.secret("it-was-plain-once"))
            deep = [{"pin": Output.secret("4713-geheim")}]
            disk("new", settings={"deep": deep, "access_token": "not-marked-but-so-named"})
        """,
    ),
    "rollout": Case(
        before=_manifest({"checklist": _digest("c"), "easycontract": _digest("a"), "gone": _digest("d")}),
        after=_manifest({"checklist": _digest("c"), "easycontract": _digest("b"), "fresh": _digest("e")}),
    ),
    "canary": Case(
        before=_manifest(
            {"checklist": _digest("c"), "easycontract": _digest("a")},
            {"checklist": {"digest": _digest("f"), "weight": 5}},
        ),
        after=_manifest(
            {"checklist": _digest("f"), "easycontract": _digest("a")},
            {"easycontract": {"digest": _digest("b"), "weight": 10}},
        ),
    ),
    "nothing": Case(before='disk("data"); disk("other")', after='disk("data"); disk("other")'),
    "outputs": Case(
        before="""
            disk("data")
            pulumi.export("size", 10)
            pulumi.export("gone", ["x"])
            pulumi.export("key", Output.secret("a-very-secret-value-1"))
            pulumi.export("same", "same")
        """,
        after="""
            disk("data")
            pulumi.export("size", 20)
            pulumi.export("fresh", {"a": 1})
            pulumi.export("key", Output.secret("a-very-secret-value-2"))
            pulumi.export("same", "same")
        """,
    ),
    "failed-check": Case(
        before='disk("data", size_gib=20); disk("other", zone="a")',
        after='disk("other", zone="b"); disk("data", size_gib=5000, labels={"team": 7})',
    ),
    "failed-program": Case(
        before='disk("data")',
        after="""
            from providers.stack import refuse
            refuse("the declaration is wrong\\n  next:    mend <b>it</b>, @somebody")
        """,
    ),
    "failed-traceback": Case(before='disk("data")', after='disk("data")\nraise RuntimeError("it broke")'),
    "protected": Case(
        before='declare(Disk, "data", {"zone": "a"}, ResourceOptions(protect=True)); disk("old")',
        after='declare(Disk, "data", {"zone": "b"}, ResourceOptions(protect=True))',
    ),
    "drift": Case(
        before='disk("data", size_gib=20); disk("lost"); disk("same")',
        after='disk("data", size_gib=20); disk("lost"); disk("same")',
        arguments=("--refresh", "--expect-no-changes"),
        meanwhile={"disk-data": {"zone": "a", "sizeGib": 99}, "disk-lost": None},
    ),
    "hostile": Case(
        before="""
            disk("plain", note="before")
        """,
        after="""
            name = "a`b|c <img src=x> @octocat [x](https://evil.example) #1 --> **bold**"
            disk(name, note="```\\n</details>\\n@octocat")
            disk("plain", note="after `` ` ``` <script>alert(1)</script> \\u202e\\u200b https://evil.example @octocat",
                 labels={"</details>\\n# head": "```"})
            pulumi.log.warn("``` </details> @octocat <img src=x> https://evil.example")
        """,
    ),
    "many": Case(before=_MANY_BEFORE, after=_MANY_AFTER, events=False, packed=True),
}
