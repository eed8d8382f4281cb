"""A base model with LoRA adapters of which each row of a batch may use another one: transformers' Llama and PEFT.

Not safe for several threads, as PEFT is not: calls that race give wrong answers without an error. Only the thread in
batcher.py calls it.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handlers.serving.errors import ServingError
from handlers.vertex import llama

BASE_ROW = "__base__"  # PEFT's name for a row without an adapter


class Tokens:
    """The tokenizer and the tokens at which an answer ends."""

    def __init__(self, folder: Path) -> None:
        from transformers import GenerationConfig, PreTrainedTokenizerFast  # type: ignore[import-not-found]

        try:
            self.tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ServingError(
                f"the tokenizer in {folder} cannot be read: {str(error)[:200]}", "release the whole model again"
            ) from None
        ends: Any = None
        if (folder / "generation_config.json").is_file():
            ends = GenerationConfig.from_pretrained(folder).eos_token_id
        if ends is None:
            ends = self.tokenizer.eos_token_id
        self.ends = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])


class MixedModel:
    """The base model of `folder` on `device` ("cpu", "cuda"), with adapters that come and go.

    Raises ServingError when it cannot be read or is of another architecture.
    """

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        import torch  # type: ignore[import-not-found]
        from safetensors.torch import load_file  # type: ignore[import-not-found]
        from transformers import LlamaConfig, LlamaForCausalLM

        self.torch = torch
        self.device = device
        config = LlamaConfig(**llama.llama_fields(folder))
        state = {llama.renamed(k): v for file in llama.weight_files(folder) for k, v in load_file(file).items()}
        missing = sorted(set(wanted_tensors(config)) - set(state))
        if missing:
            raise ServingError(
                f"{len(missing)} tensors of the base model are missing in {folder}, such as {missing[0]}",
                "release the whole model again",
            )
        self.base: Any = LlamaForCausalLM.from_pretrained(
            None, config=config, state_dict=state, dtype=getattr(torch, dtype)
        ).to(device)
        self.base.eval().requires_grad_(False)
        self.peft: Any = None
        """the base model with PEFT's layers in it, while there are adapters"""
        self.slots: dict[str, str] = {}
        """served name -> PEFT's name, in which no dot may stand"""
        self.numbers = itertools.count(1)
        self.max_positions = int(config.max_position_embeddings)

    def load(self, served: str, adapter: "Adapter") -> None:
        """From now on rows may ask for `served`. Raises ServingError (load_failed); nothing has changed then."""
        from peft import LoraConfig, get_peft_model, set_peft_model_state_dict  # type: ignore[import-not-found]

        if served in self.slots:
            raise ServingError(f"adapter {served} is loaded already", "unload it first", "load_failed")
        adapter.check_shapes(self.shapes())
        slot = f"v{next(self.numbers)}"
        config = LoraConfig(
            r=adapter.rank, lora_alpha=adapter.alpha, use_rslora=adapter.rslora, target_modules=adapter.modules(),
            lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", inference_mode=True,
        )  # fmt: skip
        try:
            if self.peft is None:
                self.peft = get_peft_model(self.base, config, adapter_name=slot, low_cpu_mem_usage=True)
            else:
                self.peft.add_adapter(slot, config, low_cpu_mem_usage=True)
            self.slots[served] = slot
            done = set_peft_model_state_dict(self.peft, adapter.tensors, adapter_name=slot, low_cpu_mem_usage=True)
            if done.unexpected_keys:
                raise ValueError(f"PEFT has no place for {done.unexpected_keys[0]}")
            self.peft.to(self.device).eval().requires_grad_(False)
        except Exception as error:  # PEFT raises what it likes
            self.slots.setdefault(served, slot)
            self.unload(served)
            raise ServingError(
                f"loading {served}: PEFT: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
                "check that the adapter was trained for this base model", "load_failed",
            ) from None  # fmt: skip

    def unload(self, served: str) -> bool:
        """Frees the adapter; False when it is not there."""
        slot = self.slots.pop(served, None)
        if slot is None:
            return False
        if self.peft is not None and slot in self.peft.peft_config:
            if len(self.peft.peft_config) > 1:
                self.peft.delete_adapter(slot)
            else:  # PEFT wants one adapter at least
                self.base = self.peft.unload()
                self.peft = None
        return True

    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of every linear module of the model's layers, by its name in a Llama."""
        found: dict[str, tuple[int, int]] = {}
        for tensor, weight in (self.base if self.peft is None else self.peft.get_base_model()).named_parameters():
            # PEFT moves a wrapped layer's own weight one level down
            name = tensor.replace(".base_layer.weight", ".weight")
            if name.endswith("_proj.weight"):
                found[name.removesuffix(".weight")] = tuple(weight.shape)
        return found

    def forward(self, ids: Any, mask: Any, positions: Any, cache: Any, adapters: Sequence[str | None]) -> Any:
        """The logits of the next token, float32 [rows, vocabulary]; `cache` grows.

        `ids`, `positions`: [rows, new tokens], `mask`: [rows, all tokens so far] with 0 for padding on the left.
        `adapters`: the served name of each row, None for the base model.
        """
        more: dict[str, Any] = {}
        model = self.base
        if self.peft is not None:
            model = self.peft
            more["adapter_names"] = [BASE_ROW if name is None else self.slots[name] for name in adapters]
        with self.torch.inference_mode():
            answer = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                logits_to_keep=1, **more,
            )  # fmt: skip
            return answer.logits[:, -1].float()


class Adapter:
    """A LoRA adapter of `folder` in memory, its names those of a Llama. Raises ServingError (adapter_invalid)."""

    def __init__(self, name: str, folder: Path) -> None:
        import json

        from safetensors.torch import load_file

        self.name = name
        try:
            given = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "adapter_model.safetensors")
            self.rank, self.alpha = int(given["r"]), float(given.get("lora_alpha", given["r"]))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ServingError(
                f"adapter {name} in {folder} cannot be read: {type(error).__name__}", "release it again",
                "adapter_invalid",
            ) from None  # fmt: skip
        for field in ("rank_pattern", "alpha_pattern", "modules_to_save", "use_dora", "layer_replication"):
            if given.get(field):
                raise ServingError(
                    f"adapter {name}: adapter_config.json has {field}, which cannot be served",
                    f"train it without {field}", "adapter_invalid",
                )  # fmt: skip
        self.rslora = bool(given.get("use_rslora"))
        names = llama.lora_modules(tensors, name)
        self.tensors = {names[key]: value for key, value in tensors.items()}

    def modules(self) -> list[str]:
        """The modules that it changes, by their whole names."""
        return sorted({key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in self.tensors})

    def check_shapes(self, there: dict[str, tuple[int, int]]) -> None:
        """Raises ServingError when it does not fit a model with these modules."""
        for module in self.modules():
            sizes = there.get(module)
            down = self.tensors.get(f"base_model.model.{module}.lora_A.weight")
            up = self.tensors.get(f"base_model.model.{module}.lora_B.weight")
            fits = (
                sizes is not None and down is not None and up is not None
                and tuple(down.shape) == (self.rank, sizes[1]) and tuple(up.shape) == (sizes[0], self.rank)
            )  # fmt: skip
            if not fits:
                shapes = [tuple(t.shape) if t is not None else "missing" for t in (down, up)]
                raise ServingError(
                    f"adapter {self.name}: {module} has A {shapes[0]} and B {shapes[1]} at rank {self.rank}, which "
                    f"does not fit the base model's module ({'there is none' if sizes is None else sizes})",
                    "release an adapter that was trained for this base model", "adapter_invalid",
                )  # fmt: skip


def wanted_tensors(config: Any) -> list[str]:
    layers = [
        f"model.layers.{layer}.{part}.weight"
        for layer in range(config.num_hidden_layers)
        for part in (
            "input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
            "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
        )
    ]  # fmt: skip
    head = [] if config.tie_word_embeddings else ["lm_head.weight"]
    return ["model.embed_tokens.weight", "model.norm.weight", *layers, *head]
