"""The versions that are loaded in the engine, and the names that stand for them: load, switch, drain, unload.

A version is `loaded` from its load to its unload; it is `leaving` once no name needs it. One that is leaving and wanted
again stays. All that decides over a version's life happens under one lock, so that it cannot be wanted and unloaded at
the same moment.
"""

import contextlib
import threading
from collections.abc import Collection, Sequence

from handlers.serving.client import EngineClient
from handlers.serving.errors import ServingError
from handlers.serving.fetch import StoredAdapter
from handlers.serving.manifest import AdapterSpec, Version
from handlers.serving.routes import RoutesFile

UNLOAD_TIMEOUT_S = 30.0


class Fleet:
    def __init__(self, client: EngineClient, routes: RoutesFile, max_live: int) -> None:
        self.client = client
        self.routes = routes
        self.max_live = max_live
        """so many have room in the engine's host memory; one above would push another out (flags.py)"""
        self.loaded: dict[str, StoredAdapter] = {}
        """by served name"""
        self.leaving: set[str] = set()
        self.changed = threading.Condition(threading.RLock())

    def claim(self, versions: Sequence[Version]) -> list[Version]:
        """Keeps those that are loaded already, and returns the others."""
        with self.changed:
            missing: list[Version] = []
            for version in versions:
                there = self.loaded.get(version.served_name)
                if there is None:
                    missing.append(version)
                elif there.version.digest != version.digest:
                    raise ServingError(
                        f"{version.name}: {version.digest} begins as {there.version.digest}, which is loaded",
                        "release another version",
                        "adapter_invalid",
                    )
                else:
                    self.leaving.discard(version.served_name)
            return missing

    def has_room(self) -> bool:
        return len(self.loaded) < self.max_live

    def load(self, adapter: StoredAdapter) -> None:
        """Gives the adapter to the engine under its immutable name. Nothing to do when it is loaded already."""
        name, served = adapter.version.name, adapter.served_name
        if served in self.loaded:
            return
        request = {"lora_name": served, "lora_path": str(adapter.folder)}
        try:
            self.client.call("POST", "/v1/load_lora_adapter", request, f"loading {name}")
        except ServingError as error:
            # The engine may have it all the same (no answer in time): a name that it knows cannot be loaded again.
            with contextlib.suppress(ServingError):
                self.unload(served)
            raise ServingError(
                error.what,
                f"check that {name} was trained for this base model (its modules carry EXAONE's names: q_proj, "
                "k_proj, v_proj, out_proj, c_fc_0, c_fc_1, c_proj) and is a plain LoRA; then release it again",
                "load_failed",
                transient=error.transient,
            ) from None
        with self.changed:
            self.loaded[served] = adapter

    def unload(self, served: str) -> None:
        """Takes a name out of the engine; one that it does not know is no error."""
        self.client.call(
            "POST", "/v1/unload_lora_adapter", {"lora_name": served}, f"unloading {served}", UNLOAD_TIMEOUT_S, (404,)
        )

    def switch(self, adapters: Sequence[AdapterSpec]) -> None:
        """From now on the public names are these, all in one step; what they do not need is leaving."""
        self.routes.change(adapters=tuple(adapters))
        needed = {version.served_name for adapter in adapters for version in adapter.versions}
        self.retire([name for name in list(self.loaded) if name not in needed])

    def retire(self, served: Collection[str]) -> None:
        """These are to be unloaded when their last request has ended. No name may stand for them."""
        with self.changed:
            self.leaving.update(name for name in served if name in self.loaded)
            self.changed.notify_all()

    def unload_idle(self) -> tuple[dict[str, int], list[str]]:
        """Unloads the leaving versions without a request in flight. Returns those that are left, with their requests,
        and the names of those unloaded. Raises ServingError when the engine does not answer."""
        with self.changed:
            if not self.leaving:
                return {}, []
            # asked after the switch: the middleware counts a request in the step in which it looks its name up
            in_flight = self.client.in_flight()
            gone = [name for name in sorted(self.leaving) if not in_flight.get(name)]
            for name in gone:
                self.unload(name)
                del self.loaded[name]
                self.leaving.discard(name)
            return {name: in_flight[name] for name in sorted(self.leaving)}, gone
