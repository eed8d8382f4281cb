"""images/bases.json: what is pinned outside of this repository, and asking registries for it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from tools.images.places import BASES, ImagesError

MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SNAPSHOT = re.compile(r"20\d{6}T\d{6}Z")
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Reference:
    """An image's name in full: registry, repository, tag."""

    registry: str
    repository: str
    tag: str

    @property
    def url(self) -> str:
        # Plain HTTP only for a registry on this machine; docker.io's API has another host than its name.
        scheme = "http" if re.match(r"(127\.0\.0\.1|localhost)(:|$)", self.registry) else "https"
        host = "registry-1.docker.io" if self.registry == "docker.io" else self.registry
        return f"{scheme}://{host}/v2/{self.repository}/manifests"


def reference(image: str) -> Reference:
    """Splits a name such as docker.io/library/python:3.12-slim-bookworm. Raises ImagesError."""
    found = re.fullmatch(r"([^/\s]+[.:][^/\s]*|localhost)/([a-z0-9._/-]+):([\w.-]+)", image)
    if found is None or found[3] == "latest":
        raise ImagesError(
            f"{image!r} is not REGISTRY/REPOSITORY:TAG with a tag other than latest\n"
            "  next: write it in full, such as docker.io/library/python:3.12-slim-bookworm"
        )
    return Reference(found[1], found[2], found[3])


def load(path: Path = BASES) -> dict[str, Any]:
    """The file, with the shape of each entry checked. Raises ImagesError."""
    try:
        document = json.loads(path.read_text())
        entries = document["bases"]
        for name, entry in entries.items():
            digest, image = entry["digest"], entry["image"]
            if digest is not None and DIGEST.fullmatch(digest) is None:
                raise ImagesError(
                    f"{path}: {name}.digest is {digest!r}\n  next: give sha256: and 64 hex digits, or null"
                )
            if digest is not None and image is None:
                raise ImagesError(f"{path}: {name} has a digest and no image\n  next: name the image")
            if image is not None:
                reference(image)
            if entry["verified"] is not True and entry["verified"] is not False:
                raise ImagesError(f"{path}: {name}.verified is {entry['verified']!r}\n  next: give true or false")
            if digest is not None and not (entry["source"] and entry["date"]):
                raise ImagesError(
                    f"{path}: {name} does not say where its digest is from, and when\n  next: fill in both"
                )
        if SNAPSHOT.fullmatch(document["debian_snapshot"]) is None:
            raise ImagesError(f"{path}: debian_snapshot is not a time\n  next: give one such as 20261121T060000Z")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ImagesError(
            f"{path}: can't be used: {type(error).__name__}: {error}\n  next: see docs/images.md"
        ) from None
    return dict(document)


def save(document: dict[str, Any], path: Path = BASES) -> None:
    """Writes the file whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(document, indent=2) + "\n")
    fresh.replace(path)


def ask(image: Reference, which: str) -> str:
    """The digest of a manifest in its registry, by tag or digest; counted again over what came. Raises ImagesError."""
    try:
        with httpx.Client(timeout=TIMEOUT_S, follow_redirects=True) as client:
            answer = client.get(f"{image.url}/{which}", headers={"Accept": MANIFESTS})
            if answer.status_code == 401:
                token = _token(client, answer.headers.get("www-authenticate", ""))
                headers = {"Accept": MANIFESTS, "Authorization": f"Bearer {token}"}
                answer = client.get(f"{image.url}/{which}", headers=headers)
    except httpx.HTTPError as error:
        raise ImagesError(
            f"{image.registry} can't be reached: {type(error).__name__}\n  next: run this where there is network, "
            f"or read the digest with `docker buildx imagetools inspect` or `crane digest` and write it to {BASES.name}"
        ) from None
    if answer.status_code != 200:
        raise ImagesError(
            f"{image.registry} answers {answer.status_code} for {image.repository} {which}\n"
            "  next: check the name; is the repository public?"
        )
    counted = "sha256:" + hashlib.sha256(answer.content).hexdigest()
    said = answer.headers.get("docker-content-digest", counted)
    wanted = which if DIGEST.fullmatch(which) else said
    if not counted == said == wanted:
        raise ImagesError(
            f"{image.registry}: the manifest of {image.repository} {which} has the digest {counted}, not {wanted}\n"
            "  next: do not use it; something on the way changes what comes"
        )
    return counted


def _token(client: httpx.Client, challenge: str) -> str:
    """A token for reading without an account, as the registry's challenge says where to get it."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if not challenge.lower().startswith("bearer ") or "realm" not in fields:
        raise ImagesError("the registry wants a login\n  next: pin the digest by hand, with a tool that is logged in")
    parameters = {name: fields[name] for name in ("service", "scope") if name in fields}
    answer = client.get(fields["realm"], params=parameters)
    try:
        found = answer.json()
        return str(found.get("token") or found["access_token"])
    except (ValueError, LookupError, AttributeError):
        raise ImagesError(
            f"the registry gives no token to read with (status {answer.status_code})\n"
            "  next: pin the digest by hand, with a tool that is logged in"
        ) from None


def pin(document: dict[str, Any], name: str, image: str | None = None) -> str:
    """Asks what the tag of a base means now and puts it in `document`; gives the digest. Raises ImagesError."""
    if name not in document["bases"]:
        raise ImagesError(f"{name} is not in {BASES.name}\n  next: give one of {', '.join(document['bases'])}")
    entry = document["bases"][name]
    wanted = image or entry["image"]
    if wanted is None:
        raise ImagesError(f"{name} has no image yet\n  next: name it: python -m tools.images pin {name} --image REF")
    found = reference(wanted)
    digest = ask(found, found.tag)
    today = datetime.now(UTC).date().isoformat()
    entry.update(image=wanted, digest=digest, source=found.registry, date=today, verified=True)
    return digest


def verify(document: dict[str, Any], name: str) -> str:
    """Asks for a base's pinned digest itself and marks it as verified when it is there. Raises ImagesError."""
    entry = document["bases"][name]
    if entry["digest"] is None:
        raise ImagesError(f"{name} has no digest yet\n  next: python -m tools.images pin {name}")
    digest = ask(reference(entry["image"]), entry["digest"])
    entry["verified"] = True
    return digest
