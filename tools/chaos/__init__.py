"""kill -9 of Pulumi at every call to a platform, and whether the next run puts all right (docs/chaos.md)."""
