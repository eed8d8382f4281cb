"""The provider resources of this platform."""

from .app import App
from .named import Secret, Volume

__all__ = ["App", "Secret", "Volume"]
