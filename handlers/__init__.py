"""The servers of a fleet: `handlers.serving` (vLLM with LoRA adapters) and `handlers.router` (HAProxy in front)."""
