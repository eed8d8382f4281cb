"""What is loaded in the engine and what the public names stand for: load, probe, switch, drain and unload.

Each step is separate, so that a start and a later change of the manifest are made of the same steps: load the new
version, probe it, switch the name, wait until the old version has no request in flight, unload it.
"""

from dataclasses import dataclass
from pathlib import Path

from handlers.serving.client import EngineClient
from handlers.serving.digest import served_name
from handlers.serving.errors import ServingError
from handlers.serving.routes import RoutesFile, Served

PROBE_PROMPT = "계약서의 핵심을 알려 주세요."


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter whose content is here, checked against its digest."""

    name: str
    digest: str
    rank: int
    folder: Path
    """must stay until the adapter is unloaded: vLLM may read it again, and dies when it cannot"""

    @property
    def served_name(self) -> str:
        return served_name(self.name, self.digest)


class Fleet:
    def __init__(self, client: EngineClient, routes: RoutesFile) -> None:
        self.client = client
        self.routes = routes
        self.loaded: dict[str, StoredAdapter] = {}
        """by served name"""

    def load(self, adapter: StoredAdapter) -> None:
        """Gives the adapter to the engine under its immutable name. Nothing to do when it is loaded already."""
        if adapter.served_name in self.loaded:
            return
        request = {"lora_name": adapter.served_name, "lora_path": str(adapter.folder)}
        try:
            self.client.call("POST", "/v1/load_lora_adapter", request, f"loading {adapter.name}")
        except ServingError as error:
            raise ServingError(
                error.what,
                f"check that {adapter.name} was trained for this base model (its modules carry EXAONE's names: q_proj, "
                "k_proj, v_proj, out_proj, c_fc_0, c_fc_1, c_proj) and is a plain LoRA; then deploy again",
            ) from None
        self.loaded[adapter.served_name] = adapter

    def probe(self, adapter: StoredAdapter) -> None:
        """One token from the adapter. Raises ServingError when the engine does not give it."""
        doing = f"probing {adapter.name}"
        answer = self.client.complete(adapter.served_name, PROBE_PROMPT, 1, doing)
        if answer["choices"][0].get("finish_reason") not in ("length", "stop"):
            raise ServingError(f"{doing}: the engine gave no token", "see the lines of vLLM in the server's log")

    def switch(self, adapter: StoredAdapter) -> None:
        """From now on the public name stands for this version."""
        served = Served(adapter.served_name, adapter.digest)
        self.routes.set(self.routes.routes.with_adapter(adapter.name, served))

    def withdraw(self, name: str) -> None:
        """The public name is no longer served."""
        self.routes.set(self.routes.routes.without_adapter(name))

    def idle(self, served: str) -> bool:
        """True when no request for this served name is in flight."""
        return not self.client.in_flight().get(served)

    def unload(self, served: str) -> None:
        """Takes a version out of the engine; its name must have been switched before. Its folder may then go."""
        if served not in self.loaded:
            return
        self.client.call("POST", "/v1/unload_lora_adapter", {"lora_name": served}, f"unloading {served}")
        del self.loaded[served]
