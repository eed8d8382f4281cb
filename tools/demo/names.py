"""Tensor names. transformers has no EXAONE 3.5, so training uses its Llama, which computes the same, and the
files carry EXAONE's names.

The names are those of the published checkpoint LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct, as vLLM's
`ExaoneForCausalLM` reads them. Standard library only.
"""

# (Llama, EXAONE); applied in order to get EXAONE's names, in reverse order to get Llama's
_PAIRS = (
    ("model.embed_tokens", "transformer.wte"),
    ("model.norm", "transformer.ln_f"),
    ("model.layers.", "transformer.h."),
    ("input_layernorm", "ln_1"),
    ("post_attention_layernorm", "ln_2"),
    ("self_attn.", "attn.attention."),
    ("o_proj", "out_proj"),
    ("gate_proj", "c_fc_0"),
    ("up_proj", "c_fc_1"),
    ("down_proj", "c_proj"),
)
_ADAPTER_PREFIX = "base_model.model."  # PEFT's, before the names of the model itself

ATTENTION_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_MODULES = ("gate_proj", "up_proj", "down_proj")


def to_exaone(llama_name: str) -> str:
    """`model.layers.0.self_attn.o_proj.weight` -> `transformer.h.0.attn.attention.out_proj.weight`."""
    for llama, exaone in _PAIRS:
        llama_name = llama_name.replace(llama, exaone)
    return llama_name


def to_llama(exaone_name: str) -> str:
    """The inverse of `to_exaone`."""
    for llama, exaone in reversed(_PAIRS):
        exaone_name = exaone_name.replace(exaone, llama)
    return exaone_name


def adapter_tensor(llama_module: str, part: str) -> str:
    """The name in an adapter's file of `part` (`lora_A` or `lora_B`) of a module named as in Llama."""
    return f"{_ADAPTER_PREFIX}{to_exaone(llama_module)}.{part}.weight"


def adapted_module(tensor: str) -> tuple[str, str]:
    """The inverse of `adapter_tensor`: (module named as in Llama, part)."""
    module, part, _ = tensor.removeprefix(_ADAPTER_PREFIX).rsplit(".", 2)
    return to_llama(module), part


def target_modules() -> list[str]:
    """What every adapter of the demo changes, under EXAONE's names, sorted."""
    return sorted(to_exaone(name) for name in (*ATTENTION_MODULES, *MLP_MODULES))
