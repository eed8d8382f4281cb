"""The provider resources of this platform."""

from .model_server import ModelServer
from .router_process import RouterProcess

__all__ = ["ModelServer", "RouterProcess"]
