"""The two engines inside the handler's process: each an ASGI app with vLLM's routes, that says whether it lives."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

from handlers.serving import flags
from handlers.serving.errors import ServingError
from handlers.serving.hardware import Hardware
from handlers.vertex.settings import Settings

App = Callable[..., Awaitable[None]]
T = TypeVar("T")
OLD_VERSIONS = 32
"""adapters that PEFT may hold beside those of the manifest, while versions change over"""
STOP_S = 5.0


class Engine(Protocol):
    app: App
    dtype: str
    max_live: int
    """versions of adapters that may be loaded at a time"""

    def check_alive(self) -> None:
        """Raises ServingError when it does not work any more."""

    def stop(self) -> None: ...


class PeftEngine:
    """transformers and PEFT (batcher.py). Raises ServingError when the model cannot be read."""

    def __init__(self, settings: Settings, hardware: Hardware, model: Path, adapters: int) -> None:
        from handlers.vertex.batcher import Batcher
        from handlers.vertex.mixed_model import MixedModel, Tokens
        from handlers.vertex.peft_app import PeftApp

        launch = settings.launch
        spare_a_core(hardware)
        self.dtype = flags.dtype_for(launch.engine, hardware)
        self.max_live = adapters + OLD_VERSIONS
        mixed = MixedModel(model, hardware.device, self.dtype)
        tokens = Tokens(model)
        self.batcher = Batcher(mixed, tokens.ends, launch.engine.max_num_seqs)
        length = min(launch.engine.max_model_len or mixed.max_positions, mixed.max_positions)
        self.app: App = PeftApp(launch.base.name, mixed, tokens, self.batcher, length, settings.max_tokens)
        self.batcher.start()

    def check_alive(self) -> None:
        if self.batcher.dead is not None:
            raise ServingError(f"the engine ended: {self.batcher.dead}", "see the server's log; then start it again")

    def stop(self) -> None:
        self.batcher.stop()
        self.batcher.join(timeout=STOP_S)


class VllmEngine:
    """vLLM's AsyncLLM behind vLLM's own OpenAI app, both in this process (vLLM 0.32). Its core is a child process."""

    def __init__(
        self, settings: Settings, hardware: Hardware, model: Path, adapters: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        launch = settings.launch
        command = flags.engine_command(
            launch.engine, hardware, model=model, base_name=launch.base.name, adapters=adapters, host="127.0.0.1",
            port=launch.port,
        )  # fmt: skip
        prepare(command)
        self.dtype, self.max_live = command.dtype, command.max_live
        self.loop = loop
        self.stack = contextlib.AsyncExitStack()
        from vllm.engine.arg_utils import AsyncEngineArgs  # type: ignore[import-not-found]
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state  # type: ignore[import-not-found]
        from vllm.entrypoints.launchers.app import build_app  # type: ignore[import-not-found]
        from vllm.entrypoints.launchers.cli_args import (  # type: ignore[import-not-found]
            make_arg_parser,
            validate_parsed_serve_args,
        )
        from vllm.usage.usage_lib import UsageContext  # type: ignore[import-not-found]
        from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]
        from vllm.v1.engine.async_llm import AsyncLLM  # type: ignore[import-not-found]

        try:
            arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(
                own_arguments(command.arguments, settings.max_tokens)
            )
            validate_parsed_serve_args(arguments)
            given = AsyncEngineArgs.from_cli_args(arguments)
            config = given.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
            # Made in this thread, as it takes its time; it takes up the loop with the first request.
            self.llm: Any = AsyncLLM.from_vllm_config(
                vllm_config=config, usage_context=UsageContext.OPENAI_API_SERVER,
                disable_log_stats=given.disable_log_stats,
            )  # fmt: skip
        except SystemExit:
            raise ServingError(
                f"vLLM does not take its flags: {' '.join(command.arguments)}",
                "see its message in the log; mend extraArgs",
            ) from None
        except Exception as error:
            raise ServingError(
                f"vLLM did not start: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
                "see the lines of vLLM in the server's log, those before this error too",
            ) from None

        async def build() -> App:
            tasks = await self.llm.get_supported_tasks()
            app = build_app(arguments, tasks, self.llm.model_config)
            await init_app_state(self.llm, app.state, arguments, tasks)
            await self.stack.enter_async_context(app.router.lifespan_context(app))
            return app  # type: ignore[no-any-return]

        self.app: App = self.on_loop(build())

    def on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def check_alive(self) -> None:
        if self.llm.errored:
            raise ServingError("vLLM's core ended", "see the lines of vLLM in the server's log; then start it again")

    def stop(self) -> None:
        self.llm.shutdown(timeout=STOP_S)


def spare_a_core(hardware: Hardware) -> None:
    """torch's threads spin while they wait, unless OMP_WAIT_POLICY=PASSIVE was set before torch was loaded (by the
    server, before the handler): with as many as there are cores, they take them from each other and the event loop."""
    if hardware.device == "cpu" and os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        import torch  # type: ignore[import-not-found]

        torch.set_num_threads(max(1, hardware.cores - 1))


def own_arguments(arguments: tuple[str, ...], max_tokens: int) -> list[str]:
    """Without the middleware, which stands in front of both engines; and with the cap on an answer's tokens. The cap
    comes first: one in extraArgs counts more."""
    place = arguments.index("--middleware")
    cap = ["--override-generation-config", json.dumps({"max_new_tokens": max_tokens})]
    return [*cap, *arguments[:place], *arguments[place + 2 :]]


def prepare(command: flags.EngineCommand) -> None:
    """What handlers.serving.process does for an engine's process: variables and the place of the plugins."""
    os.environ.update(command.environment)
    # Its core must not be forked from a process with threads.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    for folder in reversed(command.environment["PYTHONPATH"].split(os.pathsep)):
        if folder not in sys.path:
            sys.path.insert(0, folder)


def make(settings: Settings, hardware: Hardware, model: Path, adapters: int, loop: asyncio.AbstractEventLoop) -> Engine:
    if settings.engine == "peft":
        return PeftEngine(settings, hardware, model, adapters)
    return VllmEngine(settings, hardware, model, adapters, loop)
