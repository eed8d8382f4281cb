"""handlers.vertex.llama: EXAONE's tensors, fields and adapters in the words of transformers' Llama."""

from pathlib import Path

import pytest

from handlers.serving.errors import ServingError
from handlers.vertex import llama

DEMO = Path(__file__).resolve().parents[2] / "demo"


def test_names_of_exaone_in_llamas_words() -> None:
    assert llama.renamed("transformer.h.3.attn.attention.out_proj.weight") == "model.layers.3.self_attn.o_proj.weight"
    assert llama.renamed("transformer.h.3.mlp.c_fc_1.weight") == "model.layers.3.mlp.up_proj.weight"
    assert llama.renamed("transformer.wte.weight") == "model.embed_tokens.weight"
    assert llama.renamed("lm_head.weight") == "lm_head.weight"
    fields = llama.llama_fields(DEMO / "base")
    assert (fields["num_hidden_layers"], fields["hidden_act"], fields["rms_norm_eps"]) == (3, "silu", 1e-5)
    assert "model_type" not in fields


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ServingError, match="mamba"):
        llama.llama_fields(tmp_path)


@pytest.mark.parametrize(
    "tensor",
    ["base_model.model.lm_head.weight", "base_model.model.transformer.wte.lora_embedding_A",
     "base_model.model.transformer.h.0.mlp.c_fc_0.lora_magnitude_vector.weight"],
)  # fmt: skip
def test_an_adapter_with_other_tensors_is_refused(tensor: str) -> None:
    good = "base_model.model.transformer.h.0.mlp.c_fc_0.lora_A.weight"
    assert list(llama.lora_modules([good], "a").values()) == [
        "base_model.model.model.layers.0.mlp.gate_proj.lora_A.weight"
    ]
    with pytest.raises(ServingError) as caught:
        llama.lora_modules([good, tensor], "a")
    assert caught.value.reason == "adapter_invalid"
