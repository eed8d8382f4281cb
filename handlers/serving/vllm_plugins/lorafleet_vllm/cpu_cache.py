"""On vLLM's CPU path, one request's NaNs must not reach another request through the KV cache.

Blocks of the cache are used again without being cleared, and the CPU's attention reads a block whole: what stands
behind the end of the text is given the weight 0, and 0 * NaN is NaN. So a single request to an adapter that computes
NaNs made later answers of other adapters NaN. (Seen with vLLM 0.32 on a CPU. The same is known of other kernels: vLLM
pull request 50283, and flash-attention issue 2374 for FlashAttention 3; FlashAttention 2 masks the values.)

What is written into the cache is made finite here. The bad request itself goes on to compute NaNs in its own row, so
the probe of a new adapter (handlers/serving/probe.py) sees them all the same.
"""

from typing import Any


def register() -> None:
    from vllm.platforms import current_platform  # type: ignore[import-not-found]

    if not current_platform.is_cpu():
        return
    import torch  # type: ignore[import-not-found]
    from vllm import _custom_ops as ops  # type: ignore[import-not-found]

    original = ops.cpu_attn_reshape_and_cache
    if getattr(original, "lorafleet", False):
        return

    def cpu_attn_reshape_and_cache(key: Any, value: Any, *rest: Any, **options: Any) -> None:
        key, value = (torch.nan_to_num(given, nan=0.0, posinf=0.0, neginf=0.0) for given in (key, value))
        original(key, value, *rest, **options)

    cpu_attn_reshape_and_cache.lorafleet = True  # type: ignore[attr-defined]
    ops.cpu_attn_reshape_and_cache = cpu_attn_reshape_and_cache
