"""What is particular to the EXAONE 3.x architecture (`ExaoneForCausalLM`): its names and the shapes behind
them.

Source of the names: config.json and the weights of LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct, revision e949c91.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorafleet.errors import Problem

ARCHITECTURE = "ExaoneForCausalLM"
MODEL_TYPE = "exaone"
EMBEDDING = "transformer.wte.weight"

# Where each module that LoRA can go on stands inside a layer.
MODULES = {
    "q_proj": "attn.attention",
    "k_proj": "attn.attention",
    "v_proj": "attn.attention",
    "out_proj": "attn.attention",
    "c_fc_0": "mlp",
    "c_fc_1": "mlp",
    "c_proj": "mlp",
}
# The same modules in the Llama layout, which adapters of a converted ("llamafied") model carry.
LLAMA_MODULES = {"o_proj": "out_proj", "gate_proj": "c_fc_0", "up_proj": "c_fc_1", "down_proj": "c_proj"}
LLAMA_HINT = (
    "Rename: model.layers -> transformer.h, self_attn -> attn.attention, o_proj -> out_proj, "
    "gate_proj -> c_fc_0, up_proj -> c_fc_1, down_proj -> c_proj (in the tensors and in target_modules)."
)
_LLAMA_NAME = re.compile(
    r"(?:^|\.)model\.layers\.\d+\.|(?:^|\.)(?:o_proj|gate_proj|up_proj|down_proj|self_attn)(?:\.|$)"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of one model, from its config.json."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    max_positions: int
    dtype: str

    def module(self, name: str) -> tuple[int, int]:
        """(outputs, inputs) of a module of `MODULES`."""
        attention, values = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (attention, self.hidden),
            "k_proj": (values, self.hidden),
            "v_proj": (values, self.hidden),
            "out_proj": (self.hidden, attention),
            "c_fc_0": (self.intermediate, self.hidden),
            "c_fc_1": (self.intermediate, self.hidden),
            "c_proj": (self.hidden, self.intermediate),
        }[name]

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Bytes of keys and values that one token takes in all layers."""
        width = 4 if (self.dtype if dtype == "auto" else dtype) == "float32" else 2
        return 2 * self.layers * self.kv_heads * self.head_dim * width


def is_llama_name(name: str) -> bool:
    """Whether a module's or a tensor's name follows the Llama layout."""
    return bool(_LLAMA_NAME.search(name))


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The sizes that a config.json states. Raises `Problem`."""
    hidden = _size(config, "hidden_size")
    heads = _size(config, "num_attention_heads")
    return Shape(
        layers=_size(config, "num_layers", "num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=_size(config, "num_key_value_heads", default=heads),
        head_dim=_size(config, "head_dim", default=max(1, hidden // heads)),
        intermediate=_size(config, "intermediate_size", default=4 * hidden),
        vocabulary=_size(config, "vocab_size"),
        max_positions=_size(config, "max_position_embeddings"),
        dtype=str(config.get("torch_dtype") or config.get("dtype") or "float32"),
    )


def _size(config: Mapping[str, Any], *keys: str, default: int | None = None) -> int:
    value = next((config[key] for key in keys if config.get(key) is not None), default)
    if type(value) is not int or not 1 <= value <= 1 << 30:
        raise Problem(
            f"config.json has no usable {keys[0]}",
            found="no such key" if value is None else f"a {type(value).__name__}",
            allowed="a positive whole number",
            next_action="Copy the config.json that was published with the model.",
        )
    return value
