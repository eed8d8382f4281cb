"""The Pulumi program. A stack whose name a file of this folder has is that file; each other one is `serving.py`."""

import gc
import importlib
import os
from pathlib import Path

# A preview waits for this program, which lives for a second: it need not look for garbage, nor pydantic for plugins.
gc.disable()
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

import pulumi  # noqa: E402

stack = pulumi.get_stack()
importlib.import_module(stack if Path(__file__).with_name(f"{stack}.py").is_file() else "serving")
