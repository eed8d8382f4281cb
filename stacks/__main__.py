"""The Pulumi program: each environment is one file of this folder, named after its stack."""

import importlib

import pulumi

stack = pulumi.get_stack()
try:
    importlib.import_module(stack)
except ModuleNotFoundError as error:
    if error.name != stack:
        raise
    raise pulumi.RunError(
        f"there is no program for the stack '{stack}'\n  next:    write stacks/{stack}.py, as stacks/local.py is"
    ) from None
