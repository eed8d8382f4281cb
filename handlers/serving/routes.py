"""The routes file: what the launcher tells alias.py inside the engine - names, keys, and whether to take requests.

It holds digests of secrets, never a secret. The launcher replaces it by a rename; alias.py reads it again on a change.
"""

import hashlib
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handlers.serving.state import write_json

ADMIN_HEADER = "x-lorafleet-admin"
ROUTES_VARIABLE = "LORAFLEET_ROUTES"
MAX_BODY_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Served:
    """What stands behind one public name."""

    served_name: str
    digest: str


@dataclass(frozen=True)
class Routes:
    base: str
    base_digest: str | None
    api_key_sha256: tuple[str, ...]
    admin_sha256: str
    adapters: tuple[tuple[str, Served], ...] = ()
    """public name -> what it stands for, in the manifest's order"""
    ready: bool = False
    """what /ready says"""
    accepting: bool = False
    """whether requests are served; stays true for a short grace after `ready` turned false, see launcher.py"""
    max_body_bytes: int = MAX_BODY_BYTES

    def with_adapter(self, name: str, served: Served) -> "Routes":
        """The same routes with the public `name` standing for `served`, in its old place when it had one."""
        table = dict(self.adapters)
        table[name] = served
        return replace(self, adapters=tuple(table.items()))

    def without_adapter(self, name: str) -> "Routes":
        return replace(self, adapters=tuple(item for item in self.adapters if item[0] != name))

    def document(self) -> dict[str, Any]:
        return {
            "base": self.base,
            "baseDigest": self.base_digest,
            "apiKeySha256": list(self.api_key_sha256),
            "adminSha256": self.admin_sha256,
            "adapters": {name: {"servedName": s.served_name, "digest": s.digest} for name, s in self.adapters},
            "ready": self.ready,
            "accepting": self.accepting,
            "maxBodyBytes": self.max_body_bytes,
        }


class RoutesFile:
    """The routes of one running engine, and the file that holds them (mode 0600)."""

    def __init__(self, path: Path, routes: Routes) -> None:
        self.path = path
        self.routes = routes

    def set(self, routes: Routes) -> None:
        write_json(self.path, routes.document(), mode=0o600)
        self.routes = routes

    def change(self, **fields: Any) -> None:
        self.set(replace(self.routes, **fields))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def new_admin_token() -> tuple[str, str]:
    """A random token for this start, and its SHA-256 in hex. Only the launcher knows the token."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).hexdigest()
