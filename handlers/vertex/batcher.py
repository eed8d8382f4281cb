"""The one thread that runs the model: all requests that are there go through it together, whatever their adapters.

Requests join and leave between two tokens: new ones are read (their prompts together) and put beside those at work;
one that is done, or whose client has gone, makes room at once. Shorter rows have padding on the left, which the mask
hides. Loading and unloading adapters happens between two tokens as well.
"""

import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from handlers.serving.errors import ServingError
from handlers.vertex.jobs import End, Job
from handlers.vertex.mixed_model import MixedModel
from handlers.vertex.sampling import next_tokens

T = TypeVar("T")
PROMPT_TOKENS = 4096
"""as many (with padding) are read in one step, so that requests at work do not wait long for a new one's first token"""
FAILURES = 3
"""so many steps in a row may fail before the engine is given up"""


class Batcher(threading.Thread):
    """`max_rows`: requests at work at a time. `ends`: the tokens at which an answer ends."""

    def __init__(self, model: MixedModel, ends: frozenset[int], max_rows: int) -> None:
        super().__init__(name="inference", daemon=True)
        self.model = model
        self.ends = ends
        self.max_rows = max_rows
        self.news = threading.Condition()
        self.waiting: deque[Job] = deque()
        self.errands: deque[Callable[[], None]] = deque()
        self.rows: list[Job] = []
        self.cache: Any = None
        self.mask: Any = None
        self.last: list[int] = []
        """the newest token of each row, which the model has not seen yet"""
        self.ending = False
        self.dead: str | None = None
        self.failures = 0
        self.made = 0
        """tokens, since the start"""

    # what other threads call

    def submit(self, job: Job) -> None:
        with self.news:
            if self.dead is None and not self.ending:
                self.waiting.append(job)
                self.news.notify()
                return
        job.deliver(End(error="the engine has ended"))

    def call(self, work: Callable[[], T]) -> "Future[T]":
        """Runs `work` in the engine's thread, between two tokens."""
        future: Future[T] = Future()

        def errand() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)

        with self.news:
            if self.dead is not None or self.ending:
                future.set_exception(ServingError("the engine has ended", "see the server's log"))
            else:
                self.errands.append(errand)
                self.news.notify()
        return future

    def stop(self) -> None:
        with self.news:
            self.ending = True
            self.news.notify()

    # the thread itself

    def run(self) -> None:
        try:
            while self.wait():
                for errand in self.take_errands():
                    errand()
                try:
                    self.drop(lambda job: job.cancelled.is_set())
                    self.admit()
                    self.step()
                    self.failures = 0
                except Exception as error:  # of torch; what is asked next may well work
                    traceback.print_exc()
                    self.fail_rows(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
                    self.failures += 1
                    if self.failures >= FAILURES:
                        raise
        except BaseException as error:
            self.dead = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        finally:
            with self.news:
                self.ending = True
                left, errands = [*self.rows, *self.waiting], [*self.errands]
                self.rows, self.waiting = [], deque()
                self.errands.clear()
            for job in left:
                job.deliver(End(error=self.dead or "the engine was stopped"))
            for errand in errands:
                errand()

    def wait(self) -> bool:
        """Until there is something to do; False when the thread is to end."""
        with self.news:
            while not (self.ending or self.waiting or self.errands or self.rows):
                self.news.wait()
            return not self.ending

    def take_errands(self) -> list[Callable[[], None]]:
        with self.news:
            found = list(self.errands)
            self.errands.clear()
            return found

    def admit(self) -> None:
        """Reads the prompts of those that wait, as many as there is room for, and lets them join."""
        new: list[Job] = []
        longest = 0
        with self.news:
            # also behind rows that take long: clients that come and go must not fill the queue
            self.waiting = deque(job for job in self.waiting if not job.cancelled.is_set())
            while self.waiting and len(self.rows) + len(new) < self.max_rows:
                job = self.waiting[0]
                longest = max(longest, len(job.prompt))
                if new and longest * (len(new) + 1) > PROMPT_TOKENS:
                    break
                self.waiting.popleft()
                if job.adapter is not None and job.adapter not in self.model.slots:
                    job.deliver(End(error=f"{job.adapter} is not loaded"))
                else:
                    new.append(job)
        if not new:
            return
        try:
            self.merge(new, *self.read_prompts(new))
        except BaseException:
            for job in new:
                if job not in self.rows:  # fail_rows() tells the others
                    job.deliver(End(error="the prompt could not be read"))
            raise

    def read_prompts(self, jobs: Sequence[Job]) -> tuple[Any, Any, Any]:
        """(cache, mask, logits) of these prompts"""
        from transformers import DynamicCache  # type: ignore[import-not-found]

        torch = self.model.torch
        width = max(len(job.prompt) for job in jobs)
        ids = torch.tensor([[0] * (width - len(job.prompt)) + job.prompt for job in jobs], device=self.model.device)
        mask = torch.tensor(
            [[0] * (width - len(job.prompt)) + [1] * len(job.prompt) for job in jobs], device=self.model.device
        )
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache()
        logits = self.model.forward(ids, mask, positions, cache, [job.adapter for job in jobs])
        return cache, mask, logits

    def merge(self, new: Sequence[Job], cache: Any, mask: Any, logits: Any) -> None:
        """Puts the new rows below those at work, both padded on the left to one width."""
        from transformers import DynamicCache

        torch = self.model.torch
        if self.rows:
            width = max(mask.shape[1], self.mask.shape[1])
            pad = torch.nn.functional.pad
            both = DynamicCache()
            for number, (old, fresh) in enumerate(zip(layers(self.cache), layers(cache), strict=True)):
                keys, values = (
                    torch.cat([pad(side, (0, 0, width - side.shape[2], 0)) for side in pair])
                    for pair in zip(old, fresh, strict=True)
                )
                both.update(keys, values, number)
            mask = torch.cat([pad(each, (width - each.shape[1], 0)) for each in (self.mask, mask)])
            cache = both
        self.rows += new
        self.cache, self.mask = cache, mask
        self.last += self.hand_out(new, logits)
        self.drop(lambda job: job.count < 0)

    def step(self) -> None:
        """One more token for every row."""
        if not self.rows:
            return
        torch = self.model.torch
        ids = torch.tensor(self.last, device=self.model.device)[:, None]
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        positions = self.mask.sum(-1, keepdim=True) - 1
        logits = self.model.forward(ids, self.mask, positions, self.cache, [job.adapter for job in self.rows])
        self.last = self.hand_out(self.rows, logits)
        self.drop(lambda job: job.count < 0)

    def hand_out(self, jobs: Sequence[Job], logits: Any) -> list[int]:
        """Chooses each row's next token and delivers it. The count of a row that is done becomes -1."""
        tokens = next_tokens(self.model.torch, jobs, logits)
        self.made += len(tokens)
        for job, token in zip(jobs, tokens, strict=True):
            if job.cancelled.is_set():
                continue
            if token.id in self.ends and not job.sampling.ignore_eos:
                self.end(job, End("stop"))
                continue
            job.count += 1
            job.deliver(token)
            if job.count >= job.sampling.max_tokens:
                self.end(job, End("length"))
        return [token.id for token in tokens]

    def end(self, job: Job, how: End) -> None:
        job.count = -1
        job.deliver(how)

    def drop(self, goes: Callable[[Job], bool]) -> None:
        """Takes rows out, and columns that are only padding now."""
        keep = [number for number, job in enumerate(self.rows) if not goes(job)]
        if len(keep) == len(self.rows):
            return
        self.rows = [self.rows[number] for number in keep]
        self.last = [self.last[number] for number in keep]
        if not keep:
            self.cache = self.mask = None
            return
        from transformers import DynamicCache

        torch = self.model.torch
        chosen = torch.tensor(keep, device=self.model.device)
        mask = self.mask[chosen]
        first = int(mask.argmax(-1).min())
        self.mask = mask[:, first:]
        cache = DynamicCache()
        for number, (keys, values) in enumerate(layers(self.cache)):
            cache.update(keys[chosen, :, first:], values[chosen, :, first:], number)
        self.cache = cache

    def fail_rows(self, what: str) -> None:
        for job in self.rows:
            if job.count >= 0:
                job.deliver(End(error=what))
        self.rows, self.last = [], []
        self.cache = self.mask = None


def layers(cache: Any) -> list[tuple[Any, Any]]:
    """(keys, values) of each layer, [rows, heads, tokens, size]"""
    return [(layer.keys, layer.values) for layer in cache.layers]
