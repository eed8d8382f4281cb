"""Google's tokens: where they come from, and what is said when there are none. No token is kept or shown."""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

from providers import kit

TOKEN_VARIABLE = "GOOGLE_OAUTH_ACCESS_TOKEN"  # the one that pulumi-gcp reads, too
FILE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_HOW = f"run `gcloud auth application-default login`, or set {FILE_VARIABLE} to a file with credentials"
_lock = threading.Lock()


def headers() -> dict[str, str]:
    """What a request shows who asks: a token of the environment, else of the application default credentials, renewed
    where it is old. Those may also name the project whose quota counts: a person's are refused without it.

    Blocks while Google is asked. Raises kit.ResourceError if there are no credentials or they are refused.
    """
    given = os.environ.get(TOKEN_VARIABLE, "")
    if given:
        if given.isascii() and given.isprintable() and given.strip() == given:
            return {"authorization": f"Bearer {given}"}
        raise kit.ResourceError(
            f"the environment variable {TOKEN_VARIABLE} holds no token (its value is not shown)",
            next_action="set it again, without spaces or line ends around it, or take it away",
        )
    from google.auth import exceptions

    with _lock:
        try:
            found = _application_default()
            if not found.valid:
                from google.auth.transport.requests import Request

                found.refresh(Request())
            shown: dict[str, str] = {}
            found.apply(shown)
            return shown
        except exceptions.DefaultCredentialsError:
            # Google's own text may quote the content of a file.
            raise missing() from None
        except exceptions.GoogleAuthError as error:
            raise kit.ResourceError(
                f"Google gave no token for the credentials that were found ({type(error).__name__})",
                next_action=f"{_HOW}; look at the network if that does not help",
            ) from None


@cache
def _application_default() -> Any:
    import google.auth

    found, _ = google.auth.default(scopes=[_SCOPE])
    return found


def missing() -> kit.ResourceError:
    return kit.ResourceError("there are no Google credentials (application default credentials)", next_action=_HOW)


async def warn_without(ctx: kit.Context) -> None:
    """Told at preview, which goes on: what it shows needs no token. Only looks at this machine."""
    if os.environ.get(TOKEN_VARIABLE) or os.environ.get(FILE_VARIABLE) or _well_known().is_file():
        return
    if os.environ.get("GCE_METADATA_HOST") or _on_google():
        return
    await ctx.warn(f"there are no Google credentials on this machine; `pulumi up` needs them\n  next: {_HOW}")


def _well_known() -> Path:
    """Where `gcloud auth application-default login` puts them."""
    folder = os.environ.get("CLOUDSDK_CONFIG")
    base = Path(folder) if folder else Path.home() / ".config" / "gcloud"
    return base / "application_default_credentials.json"


def _on_google() -> bool:
    """Whether this is a machine of Google's, which has credentials of its own."""
    try:
        return "Google" in Path("/sys/class/dmi/id/product_name").read_text()
    except OSError:
        return False
