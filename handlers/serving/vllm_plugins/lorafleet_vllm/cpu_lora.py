"""On vLLM's CPU path, a row without an adapter must get no adapter.

vLLM marks such rows with the index -1, and its torch operations use the index as it is: -1 reads the last slot of the
stacked adapter weights. As soon as every slot has held an adapter, requests to the base model are answered with that
adapter's weights (vLLM issues 48421 and 49656). The LoRA term of those rows is set to zero here before it is added:
whatever the slot holds, NaN too, which a product with zeros would let through. The Triton kernels of the CUDA path skip
negative indices; they are not touched.

handlers/serving/base_check.py checks at each start and after each change that the base model's answers are its own.
"""

from collections.abc import Callable
from typing import Any


def register() -> None:
    from vllm.platforms import current_platform  # type: ignore[import-not-found]

    if not current_platform.is_cpu():
        return
    from vllm.lora.ops.torch_ops import lora_ops  # type: ignore[import-not-found]
    from vllm.lora.punica_wrapper import punica_cpu  # type: ignore[import-not-found]

    for name in ("bgmv_expand", "bgmv_expand_slice"):
        original = getattr(lora_ops, name)
        if getattr(original, "lorafleet", False):
            return
        mended = with_no_term_for_the_base(original)
        # sgmv_expand and sgmv_expand_slice call the first by its module's name; the punica wrapper has names of its own
        setattr(lora_ops, name, mended)
        setattr(punica_cpu, name, mended)


def with_no_term_for_the_base(original: Callable[..., None]) -> Callable[..., None]:
    """`original` adds to `output` the product of each row with the weights that its index names."""
    import torch  # type: ignore[import-not-found]

    def expand(
        inputs: Any, weights: Any, output: Any, indices: Any, *where: int, add_inputs: bool = True, **more: Any
    ) -> None:
        flags = [item for item in where if isinstance(item, bool)]  # add_inputs may come last among the others
        places = [item for item in where if not isinstance(item, bool)]
        adds = flags[0] if flags else add_inputs
        without_adapter = (indices < 0)[: inputs.shape[0], None]
        if not adds or not bool(without_adapter.any()):
            original(inputs, weights, output, indices, *places, add_inputs=adds, **more)
            return
        term = torch.zeros_like(output)
        original(inputs, weights, term, indices, *places, add_inputs=True, **more)
        output += term.masked_fill_(without_adapter, 0)

    expand.lorafleet = True  # type: ignore[attr-defined]
    return expand
