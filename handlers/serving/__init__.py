"""The serving process: fetches a fleet's weights, starts vLLM, loads the adapters, checks them, then is ready.

`python -m handlers.serving --config launch.json` (environment `.venv-serving`); docs/architecture.md has the formats.
Nothing here may be slow to import: alias.py runs inside vLLM, and the launcher must report within a moment.
"""
