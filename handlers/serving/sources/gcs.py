"""gs:// - a folder of a Google Cloud Storage bucket.

The credentials are those of the machine (Application Default Credentials). STORAGE_EMULATOR_HOST is honoured by the
client itself; then no credentials are needed.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from handlers.serving import sources
from handlers.serving.errors import ServingError

# Seconds to connect, and without a byte. Faults of a moment are tried again for RETRY_S here; what lasts longer is told
# and tried again by the caller.
TIMEOUT = (5, 30)
RETRY_S = 10.0
PARALLEL = 8


def download(source: str, kind: str, into: Path) -> None:
    from google.api_core import exceptions  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from google.auth import exceptions as auth  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from google.cloud import storage  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from requests.exceptions import RequestException  # type: ignore[import-untyped, unused-ignore]

    bucket_name, _, prefix = source.removeprefix("gs://").partition("/")
    prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
    try:
        client = storage.Client()
        limits = {"timeout": TIMEOUT, "retry": DEFAULT_RETRY.with_timeout(RETRY_S)}
        blobs = {
            blob.name.removeprefix(prefix): blob for blob in client.list_blobs(bucket_name, prefix=prefix, **limits)
        }
        chosen = sources.choose(blobs.keys(), kind, source)
        with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
            # the client compares each file with the checksum that the server has
            list(pool.map(lambda name: blobs[name].download_to_filename(into / name, **limits), chosen))
    except auth.DefaultCredentialsError:
        raise ServingError(
            f"{source} needs Google credentials, and this machine has none",
            "give it a service account that may read the bucket, or log in: gcloud auth application-default login",
        ) from None
    except exceptions.NotFound:
        raise ServingError(f"the bucket of {source} does not exist", "check the name of the bucket") from None
    except exceptions.Forbidden:
        raise ServingError(
            f"{source} may not be read with this machine's account", "give it the role roles/storage.objectViewer"
        ) from None
    except (exceptions.GoogleAPIError, auth.GoogleAuthError, RequestException) as error:
        raise ServingError(
            f"{source} could not be fetched: {type(error).__name__}: {str(error)[:300]}",
            "check the network and the bucket",
            transient=True,
        ) from None
