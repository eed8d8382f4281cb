"""The provider kit: what every platform's resources are built from.

Importing it loads neither gRPC nor Pulumi: a component's spec and a resource's models stay cheap to import.
"""

from .errors import NotKnownYetError, Problem, ResourceError
from .fields import AutoName, Expected, Inputs, Model, Normalised, Outputs, Replaced, Secret
from .resource import Context, Leftover, Reading, Resource

__all__ = [
    "AutoName",
    "Context",
    "Expected",
    "Inputs",
    "Leftover",
    "Model",
    "Normalised",
    "NotKnownYetError",
    "Outputs",
    "Problem",
    "Reading",
    "Replaced",
    "Resource",
    "ResourceError",
    "Secret",
]
