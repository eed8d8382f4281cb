"""The language of the fleet: declaration, resolved plan, errors and the `lorafleet` command.

Pure Python on pydantic and PyYAML. Nothing here imports pulumi, a platform's SDK, `providers` or `handlers`;
the platforms' declarations are found by name at run time (`lorafleet.targets`). Nothing is imported here
either, so that a program pays only for the modules it uses.
"""
