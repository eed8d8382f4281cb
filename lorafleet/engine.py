"""How vLLM is to be started on a target: the part of a declaration that all platforms share."""

from __future__ import annotations

from typing import Annotated, Literal

from lorafleet.values import Choice, Model, Whole

# The values that vLLM accepts for --max-lora-rank (vllm/config/lora.py, MaxLoRARanks, 0.32).
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


class EngineSettings(Model):
    """Settings of one vLLM engine.

    Fields:
        device: `cpu`, `cuda`, or `auto` for what the machine has.
        dtype: number format of the weights; `auto` takes the model's own, as far as the device can.
        max_model_len: longest prompt plus answer, in tokens; at most what the model was made for.
        max_num_seqs: requests that are worked on at the same time.
        kv_cache_mib: memory for the keys and values of requests in flight, in MiB; one request of
            `max_model_len` must fit in.
        max_lora_rank: highest rank of an adapter, one of `LORA_RANKS`. Every adapter's slot takes memory for
            this rank.
    """

    device: Annotated[Literal["auto", "cpu", "cuda"], Choice(("auto", "cpu", "cuda"))] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"], Choice(("auto", "float32", "float16", "bfloat16"))
    ] = "auto"
    max_model_len: Annotated[int, Whole(64, 131_072, "tokens")] = 4096
    max_num_seqs: Annotated[int, Whole(1, 1024, "requests")] = 32
    kv_cache_mib: Annotated[int, Whole(16, 1_048_576, "MiB")] = 1024
    max_lora_rank: Annotated[int, Choice(LORA_RANKS)] = 16

    def launch(self) -> dict[str, object]:
        """The `engine` part of a launch file (docs/architecture.md)."""
        return {**self.model_dump(by_alias=True), "extraArgs": []}
