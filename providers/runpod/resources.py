"""The provider resources of this platform."""

from .endpoint import ServerlessEndpoint
from .network_volume import NetworkVolume
from .pod import Pod
from .registry_credential import RegistryCredential

__all__ = ["NetworkVolume", "Pod", "RegistryCredential", "ServerlessEndpoint"]
