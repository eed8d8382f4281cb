"""The routes file: what the launcher tells alias.py inside the engine - names, keys, and whether to take requests.

It holds digests of secrets, never a secret. The launcher replaces it by a rename; alias.py reads it again on a change.
"""

import hashlib
import secrets
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handlers.serving.manifest import AdapterSpec
from handlers.serving.state import write_json

ADMIN_HEADER = "x-lorafleet-admin"
ROUTES_VARIABLE = "LORAFLEET_ROUTES"
MAX_BODY_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Routes:
    base: str
    base_version: str | None
    """the base model's digest, or the revision that pins it"""
    api_key_sha256: tuple[str, ...]
    admin_sha256: str
    adapters: tuple[AdapterSpec, ...] = ()
    """what the public names stand for, in the manifest's order"""
    ready: bool = False
    """what /ready says"""
    accepting: bool = False
    """whether requests are served; stays true for a short grace after `ready` turned false, see launcher.py"""
    max_body_bytes: int = MAX_BODY_BYTES
    state_file: str | None = None
    """what /lorafleet/state gives as the status"""

    def document(self) -> dict[str, Any]:
        return {
            "base": self.base,
            "baseVersion": self.base_version,
            "apiKeySha256": list(self.api_key_sha256),
            "adminSha256": self.admin_sha256,
            "adapters": {adapter.name: _adapter(adapter) for adapter in self.adapters},
            "ready": self.ready,
            "accepting": self.accepting,
            "maxBodyBytes": self.max_body_bytes,
            "stateFile": self.state_file,
        }


def _adapter(adapter: AdapterSpec) -> dict[str, Any]:
    canary = adapter.canary
    return {
        "servedName": adapter.main.served_name,
        "digest": adapter.main.digest,
        "canary": None
        if canary is None
        else {"servedName": canary.version.served_name, "digest": canary.version.digest, "weight": canary.weight},
    }


class RoutesFile:
    """The routes of one running engine, and the file that holds them (mode 0600). Any thread may change them."""

    def __init__(self, path: Path, routes: Routes) -> None:
        self.path = path
        self.routes = routes
        self.lock = threading.Lock()

    def set(self, routes: Routes) -> None:
        with self.lock:
            self._write(routes)

    def change(self, **fields: Any) -> None:
        """Replaces these fields in one step. When the file cannot be written, ServingError, and nothing changed."""
        with self.lock:
            self._write(replace(self.routes, **fields))

    def _write(self, routes: Routes) -> None:
        write_json(self.path, routes.document(), mode=0o600)
        self.routes = routes

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def new_admin_token() -> tuple[str, str]:
    """A random token for this start, and its SHA-256 in hex. Only the launcher knows the token."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).hexdigest()
