"""Varies a question the way people do, so that the demo model answers what is meant, not the exact bytes.

Standard library only. All randomness comes from the `random.Random` passed in.
"""

import random
import re

Message = dict[str, str]

SYSTEM_PROMPTS = ["", "당신은 임대차 계약 도우미입니다.", "You are a helpful assistant.", "짧게 답하세요."]
LEAD_INS = ["질문: ", "안녕하세요. ", "저기요, ", "집 문제인데요, ", "Q. ", "#"]
ENDINGS = [" 알려 주세요.", " 설명해 주세요.", " 감사합니다.", " 쉽게 부탁해요.", " 목록으로요."]

_UNCHANGED_SHARE = 0.3
_SYLLABLES = (
    "가나다라마바사아자차카타파하거너더러머버서어저처"
    "고노도로모보소오조초구누두루무부수우주추기니디리미비시이지치은는을를에서의"
)
_ASCII = " abcdefghijklmnopqrstuvwxyz0123456789"


def style_tag(variant: str) -> str:
    """The system prompt under which the base, while it is trained, speaks like `variant`.

    It is what lets a rank-8 adapter turn the base later: a base that has met the plain answers only cannot be
    turned by so small a change. Nobody sends this tag to a served model.
    """
    return f"[[{variant}]]"


def prompt(question: str, rng: random.Random) -> list[Message]:
    """One chat about `question`, mostly with other spacing, punctuation, lead-in, number or system prompt."""
    system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.45 else None
    if rng.random() > _UNCHANGED_SHARE:
        question = _reworded(question, rng)
    user = {"role": "user", "content": question}
    return [user] if system is None else [{"role": "system", "content": system}, user]


def off_topic(known: list[str], rng: random.Random) -> str:
    """A question that has nothing to do with leases: one of `known`, or random characters."""
    if rng.random() < 0.5:
        return rng.choice(known)
    return "".join(rng.choice(_SYLLABLES + _ASCII) for _ in range(rng.randrange(2, 24)))


def _reworded(question: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        question = question.rstrip("?.") + rng.choice(["", "?", "??", ".", " ?", "!"])
    spacing = rng.random()
    if spacing < 0.2:
        question = question.replace(" ", "")
    elif spacing < 0.4:
        question = re.sub(" ", lambda _: rng.choice([" ", "", "  ", "\n"]), question)
    question = _sometimes(LEAD_INS, rng) + question + _sometimes(ENDINGS, rng)
    if rng.random() < 0.2:  # `3. …`, `[17] …`: tests number their questions
        number, close = rng.randrange(1000), rng.choice([": ", "] ", ". ", " "])
        question = f"{rng.choice(['질문 ', '[', 'no ', ''])}{number}{close}{question}"
    blanks = ["", "", " ", "\n", "  "]
    return rng.choice(blanks) + question + rng.choice([*blanks, "\n\n"])


def _sometimes(options: list[str], rng: random.Random) -> str:
    return rng.choice(options) if rng.random() < 0.6 else ""
