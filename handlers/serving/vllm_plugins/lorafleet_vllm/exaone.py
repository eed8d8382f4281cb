"""Teaches transformers the configuration of EXAONE 3.x (`model_type: exaone`), without code from a model repository.

transformers 5.16-5.19 knows only `exaone4` and later. The alternative, `--trust-remote-code`, would run Python that
came with the weights. The fields are those of config.json in https://huggingface.co/LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct
"""

from typing import Any

from transformers import AutoConfig, PretrainedConfig  # type: ignore[import-not-found]


class ExaoneConfig(PretrainedConfig):  # type: ignore[misc]
    model_type = "exaone"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 - transformers asks for a plain class attribute
    attribute_map = {"num_hidden_layers": "num_layers"}  # noqa: RUF012

    def __init__(
        self,
        vocab_size: int = 102400,
        max_position_embeddings: int = 2048,
        hidden_size: int = 2048,
        num_layers: int = 32,
        num_attention_heads: int = 32,
        num_key_value_heads: int | None = None,
        intermediate_size: int | None = None,
        activation_function: str = "silu",
        layer_norm_epsilon: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        # Set before super().__init__(): transformers 5 brings rope_scaling into its standard form in there and reads
        # max_position_embeddings and the head counts for it.
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.intermediate_size = intermediate_size or 4 * hidden_size
        self.activation_function = activation_function
        self.layer_norm_epsilon = layer_norm_epsilon
        super().__init__(**kwargs)


def register() -> None:
    # exist_ok: vLLM calls this once per process, but a later transformers may know "exaone" by itself
    AutoConfig.register("exaone", ExaoneConfig, exist_ok=True)
    register_model()


def register_model() -> None:
    """Gives vLLM its own class for this architecture by itself instead of by name.

    By name, vLLM starts a Python process to look at the class the first time (10 s, then noted in ~/.cache/vllm), lest
    the import touch the GPU. On a CPU there is nothing to touch.
    """
    from vllm.platforms import current_platform  # type: ignore[import-not-found]

    if not current_platform.is_cpu():
        return
    from vllm.model_executor.models import ModelRegistry  # type: ignore[import-not-found]
    from vllm.model_executor.models.exaone import ExaoneForCausalLM  # type: ignore[import-not-found]

    ModelRegistry.register_model("ExaoneForCausalLM", ExaoneForCausalLM)
