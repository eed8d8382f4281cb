"""What the inputs of several resources have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from providers import kit

# https://cloud.google.com/vertex-ai: a project's id or number, a region; keys and values of labels.
Project = Annotated[str, Field(pattern=r"^([a-z][a-z0-9-]{4,28}[a-z0-9]|[0-9]{1,20})$")]
Location = Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+[0-9]{1,2}$")]
Labels = dict[
    Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")], Annotated[str, Field(pattern=r"^[a-z0-9_-]{0,63}$")]
]
DisplayName = Annotated[str, Field(max_length=128)]
Description = Annotated[str, Field(max_length=4000)]
KmsKey = Annotated[str, Field(pattern=r"^(projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+)?$")]
EndpointName = Annotated[str, Field(pattern=r"^projects/[^/]+/locations/[^/]+/endpoints/[^/]+$")]
DeployedId = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]


class NamedInputs(kit.Inputs):
    """name: of our own making; display_name: what the console shows (the name, if empty).

    project: id or number of the Google project; location: its region, as in `europe-west4`.
    """

    name: kit.AutoName
    project: kit.Replaced[Project]
    location: kit.Replaced[Location]
    display_name: DisplayName = ""
    description: Description = ""
    labels: Labels = Field(default_factory=dict)


def settings(inputs: NamedInputs) -> dict[str, Any]:
    """What can be changed of them, as a request says it."""
    return {
        "displayName": inputs.display_name or inputs.name,
        "description": inputs.description,
        "labels": dict(inputs.labels),
    }
