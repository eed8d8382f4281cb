"""The licences that somebody has to accept before a model is copied or served. Pure: looks at texts alone."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence that must be accepted by its `id`, with a purpose that it allows."""

    id: str
    title: str
    url: str
    terms: str


# The hub's model cards of EXAONE 3.0, 3.5, Deep and 4.0 name it `license_name: exaone`; its text calls itself
# "EXAONE AI Model License Agreement 1.1 - NC" (1.2 - NC for 4.0).
EXAONE_NC = Licence(
    id="exaone-nc",
    title="EXAONE AI Model License Agreement - NC",
    url="https://huggingface.co/LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct/blob/main/LICENSE",
    terms="research and other non-commercial purposes only, for the model, for adapters made with it and for what it "
    "answers; anything else needs a separate agreement with LG AI Research",
)

# The owner on the hub (also as the hub's cache writes it, models--LGAI-EXAONE--...), a published model's own name, the
# licence's title, the field of a model card, or what a mirror noted (lorafleet.json). A model that is merely *called*
# exaone-something needs no licence.
_EXAONE = (
    r"\blgai-exaone\b|\bexaone-(?:deep-)?\d[\d.]*-\d+(?:\.\d+)?b-instruct\b|\bexaone-deep-\d+(?:\.\d+)?b\b"
    r"|\bexaone\s+ai\s+model\s+licen[cs]e|^\s*license_name:\s*[\"']?exaone\b"
    r"|[\"']licence[\"']:\s*[\"']exaone-nc\b"
)


def needed(*names: str) -> Licence | None:
    """The licence that has to be accepted, or None.

    Args:
        names: whatever says what a model is: its source (`hf://owner/repository`, a folder), names that adapters carry
            for it (`trainedAs`), the declared licence, the text of its LICENSE, README.md or config.json.
    """
    return EXAONE_NC if any(re.search(_EXAONE, name, re.IGNORECASE | re.MULTILINE) for name in names) else None
