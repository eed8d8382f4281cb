"""Checks, locks and pins of `images/`, without a Docker engine: `python -m tools.images`. docs/images.md says more."""
