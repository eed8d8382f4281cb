"""Where weights come from: file://, gs:// and hf://, one module each, all with the same function `download`."""

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from handlers.serving import digest
from handlers.serving.errors import ServingError
from handlers.serving.manifest import Weights

ADAPTER = "adapter"
MODEL = "model"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def download(weights: Weights, kind: str, into: Path) -> None:
    """Puts the files of `kind` (ADAPTER or MODEL) from the source into the empty folder `into`.

    Raises ServingError when the source is not there, may not be read, or holds the wrong files.
    """
    scheme, _, rest = weights.source.partition("://")
    # imported here: the clients of gs:// and hf:// take a second to import and are seldom needed
    if scheme == "file":
        from handlers.serving.sources import local

        local.download(Path(rest), kind, into)
    elif scheme == "gs":
        from handlers.serving.sources import gcs

        gcs.download(weights.source, kind, into)
    else:
        from handlers.serving.sources import hub

        assert weights.revision is not None  # config.py has seen to it
        hub.download(rest, weights.revision, kind, into)


def choose(names: Collection[str], kind: str, where: str) -> list[str]:
    """Of the files at a source, those that are fetched. `where` names the source in errors.

    Pickled weights can run any code when they are read, so they are never fetched.
    """
    top_level = {name for name in names if "/" not in name}
    if kind == ADAPTER:
        wanted = list(digest.ADAPTER_FILES)
        missing = [name for name in wanted if name not in top_level]
    else:
        wanted = sorted(name for name in top_level if digest.is_model_file(name))
        missing = [] if "config.json" in top_level else ["config.json"]
        if not any(name.endswith(".safetensors") for name in wanted):
            missing.append("*.safetensors")
    if not missing:
        return wanted
    if not names:
        raise ServingError(f"there are no files at {where}", "check the path and that the files were uploaded")
    pickles = sorted(name for name in top_level if PurePosixPath(name).suffix in PICKLES)
    if pickles and any("safetensors" in name for name in missing):
        raise ServingError(
            f"{where} holds the weights as a pickle ({', '.join(pickles[:3])}), which can run code when it is read",
            "save them again with safe_serialization=True (safetensors), and give the digest of those files",
            "adapter_invalid",
        )
    raise ServingError(
        f"{where} lacks {' and '.join(missing)}",
        f"{'a PEFT adapter' if kind == ADAPTER else 'a model'} needs these files at the top of its folder",
    )
