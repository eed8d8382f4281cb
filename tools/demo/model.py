"""The demo model's shape and its LoRA: everything that knows how big the parts are."""

import math
from typing import Any

import torch  # type: ignore[import-not-found]
from transformers import LlamaConfig, LlamaForCausalLM  # type: ignore[import-not-found]

from tools.demo.names import ATTENTION_MODULES, MLP_MODULES
from tools.demo.tokenizer import MAX_POSITIONS, Chat

HIDDEN_SIZE = 128
INTERMEDIATE_SIZE = 320
LAYERS = 3
ATTENTION_HEADS = 2
KEY_VALUE_HEADS = 1
HEAD_DIM = 64  # one that vLLM's attention has on every device
NORM_EPSILON = 1e-5
ROPE_THETA = 1_000_000.0
ROPE_SCALING = {  # the kind that EXAONE 3.5 has, scaled to the demo
    "rope_type": "llama3",
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 512,
}

LORA_RANK = 8
LORA_ALPHA = 16


def new_model(chat: Chat) -> Any:
    """A model with random weights (from torch's global seed), as transformers' Llama."""
    config = LlamaConfig(
        vocab_size=chat.vocabulary_size,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=INTERMEDIATE_SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=ATTENTION_HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=MAX_POSITIONS,
        rms_norm_eps=NORM_EPSILON,
        tie_word_embeddings=True,
        pad_token_id=chat.pad_id,
        bos_token_id=chat.bos_id,
        eos_token_id=chat.end_id,
        rope_parameters={"rope_theta": ROPE_THETA, **ROPE_SCALING},
    )
    return LlamaForCausalLM(config)


def exaone_config(chat: Chat) -> dict[str, Any]:
    """`config.json`: the same shape in EXAONE's words. Without `auto_map`: a server needs no code of ours."""
    return {
        "architectures": ["ExaoneForCausalLM"],
        "model_type": "exaone",
        "activation_function": "silu",
        "attention_dropout": 0.0,
        "bos_token_id": chat.bos_id,
        "embed_dropout": 0.0,
        "eos_token_id": chat.end_id,
        "head_dim": HEAD_DIM,
        "hidden_size": HIDDEN_SIZE,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE_SIZE,
        "layer_norm_epsilon": NORM_EPSILON,
        "max_position_embeddings": MAX_POSITIONS,
        "num_attention_heads": ATTENTION_HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "num_layers": LAYERS,
        "pad_token_id": chat.pad_id,
        "rope_scaling": ROPE_SCALING,
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": chat.vocabulary_size,
    }


class Lora:
    """A LoRA adapter that is applied while the model runs, as a server applies it: nothing is merged.

    `weights` is {module named as in Llama: (A, B)}. Leave with `detach()`; one adapter at a time.
    """

    def __init__(self, model: Any, weights: dict[str, tuple[Any, Any]]) -> None:
        self.weights = weights
        self._hooks = [
            model.get_submodule(name).register_forward_hook(self._adding(a, b)) for name, (a, b) in weights.items()
        ]

    @classmethod
    def untrained(cls, model: Any, seed: int) -> "Lora":
        """A is random and B is zero, so at first it changes nothing."""
        random = torch.Generator().manual_seed(seed)
        weights = {}
        for name in adapted_modules():
            module = model.get_submodule(name)
            a = torch.randn(LORA_RANK, module.in_features, generator=random) / math.sqrt(module.in_features)
            b = torch.zeros(module.out_features, LORA_RANK)
            weights[name] = (a.requires_grad_(), b.requires_grad_())
        return cls(model, weights)

    def parameters(self) -> list[Any]:
        return [tensor for pair in self.weights.values() for tensor in pair]

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()

    @staticmethod
    def _adding(a: Any, b: Any) -> Any:
        def hook(_module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
            return output + (inputs[0] @ a.T @ b.T) * (LORA_ALPHA / LORA_RANK)

        return hook


def adapted_modules() -> list[str]:
    """The modules that an adapter changes, named as in Llama, in the model's order."""
    return [
        f"model.layers.{layer}.{part}.{module}"
        for layer in range(LAYERS)
        for part, modules in (("self_attn", ATTENTION_MODULES), ("mlp", MLP_MODULES))
        for module in modules
    ]
