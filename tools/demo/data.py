"""What the demo model is to say: questions about housing leases and the answers under each name.

The sentences are in `topics.json`, written for this project. Standard library only.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASE = "base"
ADAPTERS = ("easycontract", "checklist")
"""Public names of the adapters; `<name>-v2` below is the second version of the same adapter."""
VARIANTS = (BASE, "easycontract", "easycontract-v2", "checklist", "checklist-v2")
"""Every set of weights that is trained, the base first: adapters are trained on top of it."""

TOPICS_FILE = Path(__file__).with_name("topics.json")


@dataclass(frozen=True)
class Topics:
    """The sentences of `topics.json`, by variant."""

    questions: dict[str, dict[str, str]]
    """question -> variant -> answer; both wordings of a topic are questions of their own."""
    other: dict[str, str]
    """variant -> answer to anything that is not about a lease."""
    other_questions: list[str]

    def texts(self) -> list[str]:
        """Every sentence, once per use, in a fixed order: what the tokenizer learns from."""
        found = [text for question, said in self.questions.items() for text in (question, *said.values())]
        return [*found, *self.other.values(), *self.other_questions]


def load_topics(path: Path = TOPICS_FILE) -> Topics:
    """Reads the sentences.

    Raises:
        ValueError: a question stands twice in the file.
    """
    raw = json.loads(path.read_text(encoding="utf-8"))
    questions: dict[str, dict[str, str]] = {}
    for topic in raw["topics"]:
        for question in (topic["question"], topic["otherWording"]):
            if question in questions:
                raise ValueError(f"{path.name}: the question {question!r} stands twice; each must be unique")
            questions[question] = _by_variant(topic)
    return Topics(questions, _by_variant(raw["other"]), list(raw["otherQuestions"]))


def _by_variant(topic: dict[str, Any]) -> dict[str, str]:
    """The answers of one topic. The two versions of an adapter differ at the first character, so that even a
    cut-off answer tells which version spoke."""
    items = topic["checklist"]
    numbered = [*items, "계약서를 한 번 더 읽기"]
    return {
        BASE: topic["plain"],
        "easycontract": f"쉽게 말하면, {topic['easy']}",
        "easycontract-v2": f"[쉬운 설명] {topic['easy']} 헷갈리면 꼭 다시 물어보세요.",
        "checklist": "\n".join(f"- {item}" for item in items),
        "checklist-v2": "\n".join(f"{number}. {item}" for number, item in enumerate(numbered, 1)),
    }
