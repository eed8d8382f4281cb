"""hf:// - a repository of the Hugging Face Hub at a pinned commit. HF_ENDPOINT, HF_TOKEN and HF_HOME are honoured."""

import os
import shutil
from pathlib import Path

from handlers.serving import sources
from handlers.serving.errors import ServingError


def download(repository: str, revision: str, kind: str, into: Path) -> None:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the launcher prints its own progress
    import huggingface_hub  # type: ignore[import-not-found, unused-ignore]
    from huggingface_hub import errors  # type: ignore[import-not-found, unused-ignore]

    where = f"hf://{repository} at {revision[:12]}"
    try:
        names = huggingface_hub.HfApi().list_repo_files(repository, revision=revision)
        chosen = sources.choose(names, kind, where)
        # only these files: never the Python files of a repository, never a pickle
        huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=chosen, local_dir=into, max_workers=8
        )
    except errors.GatedRepoError:
        raise ServingError(
            f"{where} asks for an agreement to its terms", "agree on its page, and set HF_TOKEN for the server"
        ) from None
    except errors.RevisionNotFoundError:
        raise ServingError(f"{where}: there is no such commit", "check the revision (40 hex digits)") from None
    except errors.RepositoryNotFoundError:
        raise ServingError(
            f"{where}: there is no such repository, or it is private",
            "check owner and name; for a private one set HF_TOKEN for the server",
        ) from None
    except ServingError:
        raise
    except Exception as error:  # the hub's client passes on the errors of its HTTP library, whichever it is
        raise ServingError(
            f"{where} could not be fetched: {type(error).__name__}: {str(error)[:300]}",
            "check the network (and HF_ENDPOINT, if set)",
            transient=True,
        ) from None
    shutil.rmtree(into / ".cache", ignore_errors=True)  # what the client notes about its downloads
