"""The provider plugin: `python providers` is what the engine starts (see pulumi-resource-lorafleet)."""

import sys
from pathlib import Path

# Started as a folder, Python puts the folder itself on its path; `providers` must be found as a package.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from providers.kit.plugin import main  # noqa: E402

VERSION = "0.1.0"

if __name__ == "__main__":
    sys.exit(main(VERSION, sys.argv[1:]))
