"""The router: one OpenAI-compatible address in front of a fleet's targets, kept by HAProxy.

Nothing but the standard library is imported here, so that `python -m handlers.router` runs on any
Python >= 3.11.
"""
