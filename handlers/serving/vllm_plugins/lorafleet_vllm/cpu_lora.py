"""On vLLM's CPU path, a row without an adapter must get no adapter.

vLLM marks such rows with the index -1, and its torch operations use the index as it is: -1 reads the last slot of the
stacked adapter weights. As soon as every slot has held an adapter, requests to the base model are answered with that
adapter's weights (vLLM issues 48421 and 49656). Zeroing the input of the first of the two matrix products for those
rows makes their LoRA term exactly zero. The Triton kernels of the CUDA path skip negative indices; they are not
touched.

handlers/serving/probe.py checks at each start that the base model's answers are its own.
"""

from typing import Any


def register() -> None:
    from vllm.platforms import current_platform  # type: ignore[import-not-found]

    if not current_platform.is_cpu():
        return
    from vllm.lora.ops.torch_ops import lora_ops  # type: ignore[import-not-found]
    from vllm.lora.punica_wrapper import punica_cpu  # type: ignore[import-not-found]

    original = lora_ops.bgmv_shrink
    if getattr(original, "lorafleet", False):
        return

    def bgmv_shrink(
        inputs: Any, lora_b_weights: Any, output_tensor: Any, lora_indices_tensor: Any, scaling: float = 1.0
    ) -> None:
        without_adapter = (lora_indices_tensor < 0)[: inputs.shape[0], None]
        own_inputs = inputs.masked_fill(without_adapter, 0)
        original(own_inputs, lora_b_weights, output_tensor, lora_indices_tensor, scaling)

    bgmv_shrink.lorafleet = True  # type: ignore[attr-defined]
    # sgmv_shrink calls the first by its module's name; the punica wrapper holds a name of its own
    lora_ops.bgmv_shrink = bgmv_shrink
    punica_cpu.bgmv_shrink = bgmv_shrink
