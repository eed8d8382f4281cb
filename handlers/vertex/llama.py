"""EXAONE 3.x as transformers' own Llama: the same computation under other names, so no code of a model repository runs.

Names of tensors and fields as in https://huggingface.co/LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct (config.json and the
index of its weights) and in transformers' LlamaForCausalLM.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from handlers.serving.errors import ServingError

RENAMED = (
    (re.compile(r"\btransformer\.wte\b"), "model.embed_tokens"),
    (re.compile(r"\btransformer\.ln_f\b"), "model.norm"),
    (re.compile(r"\btransformer\.h\."), "model.layers."),
    (re.compile(r"\.ln_1\b"), ".input_layernorm"),
    (re.compile(r"\.ln_2\b"), ".post_attention_layernorm"),
    (re.compile(r"\.attn\.attention\."), ".self_attn."),
    (re.compile(r"\.out_proj\b"), ".o_proj"),
    (re.compile(r"\.mlp\.c_fc_0\b"), ".mlp.gate_proj"),
    (re.compile(r"\.mlp\.c_fc_1\b"), ".mlp.up_proj"),
    (re.compile(r"\.mlp\.c_proj\b"), ".mlp.down_proj"),
)
FIELDS = (
    ("num_layers", "num_hidden_layers"), ("activation_function", "hidden_act"), ("layer_norm_epsilon", "rms_norm_eps"),
)  # fmt: skip
DROPPED = ("auto_map", "embed_dropout", "architectures", "model_type", "transformers_version", "torch_dtype", "dtype")


def renamed(tensor: str) -> str:
    """A tensor's or module's name in Llama's words; one that is in them already stays."""
    for pattern, other in RENAMED:
        tensor = pattern.sub(other, tensor)
    return tensor


def llama_fields(folder: Path) -> dict[str, Any]:
    """The fields of a LlamaConfig for the model in `folder`. Raises ServingError for another architecture."""
    try:
        given: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = given.get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError):
        raise ServingError(
            f"{folder / 'config.json'} cannot be read as a model's configuration", "release the whole model again"
        ) from None
    if kind not in ("exaone", "llama"):
        raise ServingError(
            f"the base model's model_type is {kind!r}; the engine peft knows exaone and llama",
            "serve this model with vLLM: LORAFLEET_ENGINE=vllm in the image `vertex`",
        )
    fields = {name: value for name, value in given.items() if name not in DROPPED}
    for old, new in FIELDS:
        if old in fields:
            fields[new] = fields.pop(old)
    if kind == "exaone":
        fields.update(attention_bias=False, mlp_bias=False)
        # Llama's classes expect the number; EXAONE takes the number of attention heads where it is not given.
        fields.setdefault("num_key_value_heads", fields.get("num_attention_heads"))
    return fields


def weight_files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise ServingError(f"there are no *.safetensors in {folder}", "release the whole model again")
    return found


def lora_modules(tensors: Iterable[str], name: str) -> dict[str, str]:
    """For each LoRA tensor of an adapter its name in PEFT's state of a Llama. Raises ServingError (adapter_invalid) for
    one that is no part of a plain LoRA."""
    found: dict[str, str] = {}
    for tensor in tensors:
        new = renamed(tensor)
        if not re.fullmatch(r"base_model\.model\.model\.layers\.\d+\.(self_attn|mlp)\.\w+\.lora_[AB]\.weight", new):
            raise ServingError(
                f"adapter {name}: {tensor[:120]} is no LoRA weight of an attention or MLP module",
                "train a plain LoRA on q_proj, k_proj, v_proj, out_proj, c_fc_0, c_fc_1, c_proj",
                "adapter_invalid",
            )
        found[tensor] = new
    return found
