"""The provider plugin: `python providers` is what the engine starts (see pulumi-resource-lorafleet)."""

import gc
import os
import sys
from pathlib import Path

ENGINE_PID = os.getppid()  # asked at once: an engine that is killed now must not leave its plugin waiting for another

# Started as a folder, Python puts the folder itself on its path; `providers` must be found as a package.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

# What is imported stays; looking through it for garbage again and again only makes the start slower.
gc.disable()

from providers.kit.plugin import main  # noqa: E402

gc.freeze()
gc.enable()

VERSION = "0.1.0"

if __name__ == "__main__":
    sys.exit(main(VERSION, sys.argv[1:], ENGINE_PID))
