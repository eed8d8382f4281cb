"""The provider resources of the artifact store."""

from .manifest_resource import Manifest

__all__ = ["Manifest"]
