"""The generated messages of Pulumi's provider protocol, without the rest of its SDK.

They lie in the package `pulumi.runtime.proto`. Importing that the ordinary way also runs `pulumi/__init__.py`
and loads all services, which doubles the time that a plugin takes to start (0.2 s instead of 0.1 s), and every
preview waits for it. So the files are loaded as a package of their own. Nothing else of Pulumi runs in a plugin.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pulumi.runtime.proto import (
        engine_pb2,
        engine_pb2_grpc,
        plugin_pb2,
        provider_pb2,
        provider_pb2_grpc,
        status_pb2,
    )
else:
    _PACKAGE = "_pulumi_protocol"

    def _load(name: str) -> types.ModuleType:
        if _PACKAGE not in sys.modules:
            found = importlib.util.find_spec("pulumi")
            if found is None or not found.submodule_search_locations:
                raise ModuleNotFoundError("pulumi is not installed; run `make setup`", name="pulumi")
            package = types.ModuleType(_PACKAGE)
            package.__path__ = [f"{folder}/runtime/proto" for folder in found.submodule_search_locations]
            sys.modules[_PACKAGE] = package
        return importlib.import_module(f"{_PACKAGE}.{name}")

    plugin_pb2 = _load("plugin_pb2")
    provider_pb2 = _load("provider_pb2")
    provider_pb2_grpc = _load("provider_pb2_grpc")
    status_pb2 = _load("status_pb2")

    def __getattr__(name: str) -> types.ModuleType:
        # Only a resource that has something to say needs these.
        if name in ("engine_pb2", "engine_pb2_grpc"):
            return _load(name)
        raise AttributeError(name)


__all__ = ["engine_pb2", "engine_pb2_grpc", "plugin_pb2", "provider_pb2", "provider_pb2_grpc", "status_pb2"]
