"""`python -m handlers.vertex.bundle FOLDER [--launch launch.json]`: what a container's model folder must hold.

Hugging Face's containers fetch that folder from the model's `artifactUri`, install its requirements.txt and load its
handler.py. Upload FOLDER as it is. It holds no model and no adapters: those come from the store, by digest.
"""

import argparse
import shutil
import sys
from pathlib import Path

HANDLERS = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.md")
# torch is the container's own, and so is transformers where it is new enough (mixed_model.py needs 4.56's arguments).
# transformers 5 wants a newer torch than the older container's. Versions else as in requirements/vertex.lock and
# serving.lock.
REQUIREMENTS = "peft==0.21.2\naccelerate==1.15.0\ngoogle-cloud-storage>=3.4,<4\ntransformers>=4.57.3,<5\n"


def write(folder: Path, launch: Path | None = None) -> None:
    """Fills `folder`, which may exist; files of its own stay. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("serving", "vertex"):
        target = folder / "handlers" / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(HANDLERS / name, target, ignore=LEFT_OUT)
    shutil.copyfile(HANDLERS / "__init__.py", folder / "handlers" / "__init__.py")
    shutil.copyfile(HANDLERS / "vertex" / "handler.py", folder / "handler.py")
    (folder / "requirements.txt").write_text(REQUIREMENTS, encoding="utf-8")
    if launch is not None:
        shutil.copyfile(launch, folder / "launch.json")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m handlers.vertex.bundle", description="Writes the model's folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--launch", type=Path, help="a launch file; without it LORAFLEET_CONFIG must give one")
    options = parser.parse_args(arguments)
    try:
        write(options.folder, options.launch)
    except OSError as error:
        sys.stderr.write(f"error: {error.filename}: {error.strerror}\n  next: check the folder and its mode\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
