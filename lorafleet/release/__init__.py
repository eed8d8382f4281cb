"""The release block of a stack file: reading it, comparing two, and changing one without touching a byte too many.

Pure text and data; the store that says whether a digest may be promoted is asked by `providers/artifacts/release_*.py`.
"""
