"""The Pulumi program: each environment is one file of this folder, named after its stack."""

import gc
import importlib
import os

# A preview waits for this program, which lives for a second: it need not look for garbage, nor pydantic for plugins.
gc.disable()
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

import pulumi  # noqa: E402

from providers.stack import refuse  # noqa: E402

stack = pulumi.get_stack()
try:
    importlib.import_module(stack)
except ModuleNotFoundError as error:
    if error.name != stack:
        raise
    refuse(f"there is no program for the stack '{stack}'\n  next:    write stacks/{stack}.py, as stacks/local.py is")
