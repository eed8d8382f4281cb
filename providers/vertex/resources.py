"""The provider resources of this platform."""

from .deployment import Deployment
from .endpoint import Endpoint
from .model import Model
from .traffic import Traffic

__all__ = ["Deployment", "Endpoint", "Model", "Traffic"]
