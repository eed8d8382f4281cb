"""Makes a checkout ready to use: `python3 -m tools.setup`.

The standard library alone: nothing else is installed yet.
"""
