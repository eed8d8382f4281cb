"""An answer of the engine peft in the shapes of the OpenAI API, whole or in pieces."""

import math
from collections.abc import Iterator
from typing import Any

from handlers.vertex.asked import Asked
from handlers.vertex.jobs import Token

UNKNOWN = "\ufffd"


class Reply:
    """Takes the tokens of one answer. Text comes out only in whole characters, and without a stop text."""

    def __init__(self, tokenizer: Any, asked: Asked, chat: bool, prompt_tokens: int, number: str, created: int) -> None:
        from tokenizers.decoders import DecodeStream  # type: ignore[import-not-found]

        self.tokenizer = tokenizer
        self.asked = asked
        self.chat = chat
        self.prompt_tokens = prompt_tokens
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{number}"
        self.created = created
        self.decoder = DecodeStream(skip_special_tokens=True)
        self.tokens: list[Token] = []
        self.text = ""
        self.told = 0
        """characters of the text that were handed out"""
        self.pending: list[Token] = []
        """tokens that were not handed out yet"""
        self.finished: str | None = None
        self.stopped = False
        """a stop text was found: no more tokens are wanted"""

    def add(self, token: Token) -> dict[str, Any] | None:
        """The next piece for a stream, if there is a new text."""
        self.tokens.append(token)
        self.pending.append(token)
        before = len(self.text)
        self.text += self.decoder.step(self.tokenizer.backend_tokenizer, token.id) or ""
        # only where the new text could complete one: a search of all of it for each token would hold up the event loop
        found = (self.text.find(stop, max(0, before - len(stop) + 1)) for stop in self.asked.stops)
        places = [place for place in found if place >= 0]
        if places:
            self.text = self.text[: min(places)]
            self.stopped = True
            self.finished = "stop"
            return None  # closing() has the rest
        # what may be the beginning of a stop text is held back
        held = max((len(stop) - 1 for stop in self.asked.stops), default=0)
        return self.piece(len(self.text) - held)

    def finish(self, reason: str) -> None:
        self.finished = reason

    def piece(self, until: int) -> dict[str, Any] | None:
        if until <= self.told:
            return None
        new, self.told = self.text[self.told : until], until
        tokens, self.pending = self.pending, []
        if self.chat:
            return self.chunk({"index": 0, "delta": {"content": new}, **self.scores(tokens), "finish_reason": None})
        return self.chunk({"index": 0, "text": new, **self.scores(tokens), "finish_reason": None})

    def opening(self) -> Iterator[dict[str, Any]]:
        if self.chat:
            yield self.chunk({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})

    def closing(self) -> Iterator[dict[str, Any]]:
        rest = self.piece(len(self.text))
        if rest is not None:
            yield rest
        last: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        yield self.chunk({"index": 0, **last, "finish_reason": self.finished})
        if self.asked.include_usage:
            yield {**self.envelope("chunk"), "choices": [], "usage": self.usage()}

    def document(self) -> dict[str, Any]:
        content: dict[str, Any] = {"text": self.text}
        if self.chat:
            content = {"message": {"role": "assistant", "content": self.text}}
        choice = {"index": 0, **content, **self.scores(self.tokens), "finish_reason": self.finished}
        return {**self.envelope(""), "choices": [choice], "usage": self.usage()}

    def chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self.envelope("chunk"), "choices": [choice]}

    def envelope(self, kind: str) -> dict[str, Any]:
        name = ("chat.completion" + (f".{kind}" if kind else "")) if self.chat else "text_completion"
        return {"id": self.id, "object": name, "created": self.created, "model": self.asked.model}

    def usage(self) -> dict[str, int]:
        made = len(self.tokens)
        return {
            "prompt_tokens": self.prompt_tokens, "completion_tokens": made, "total_tokens": self.prompt_tokens + made,
        }  # fmt: skip

    def scores(self, tokens: list[Token]) -> dict[str, Any]:
        if self.asked.sampling.logprobs is None:
            return {"logprobs": None}
        if self.chat:
            return {"logprobs": {"content": [self.chat_score(token) for token in tokens]}}
        return {
            "logprobs": {
                "tokens": [self.told_token(token.id) for token in tokens],
                "token_logprobs": [finite(token.logprob) for token in tokens],
                "top_logprobs": [
                    {self.told_token(each): finite(score) for each, score in ((token.id, token.logprob), *token.top)}
                    for token in tokens
                ],
            }
        }

    def chat_score(self, token: Token) -> dict[str, Any]:
        def one(number: int, score: float | None) -> dict[str, Any]:
            text = self.tokenizer.decode([number])
            return {"token": text, "logprob": finite(score), "bytes": list(text.encode())}

        return {**one(token.id, token.logprob), "top_logprobs": [one(*pair) for pair in token.top]}

    def told_token(self, number: int) -> str:
        """A token as text; a part of a character, which is none, as the tokenizer names it, so that two such differ."""
        text = str(self.tokenizer.decode([number]))
        return text if UNKNOWN not in text else f"bytes:{self.tokenizer.convert_ids_to_tokens(number)}"


def finite(score: float | None) -> float | None:
    """JSON has no NaN; minus infinity is what vLLM writes for it."""
    if score is None or math.isnan(score):
        return None
    return max(score, -9999.0)
