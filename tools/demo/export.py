"""The files of the demo, written and read back, and their content digests."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file  # type: ignore[import-not-found]

from handlers.serving import digest
from tools.demo import names
from tools.demo.data import ADAPTERS, Topics
from tools.demo.model import LORA_ALPHA, LORA_RANK, exaone_config
from tools.demo.tokenizer import Chat

BASE_MODEL_NAME = "lorafleet-demo"
_LM_HEAD = "lm_head.weight"  # the embedding once more: EXAONE's file leaves it out


def base_folder(out: Path) -> Path:
    return out / "base"


def adapter_folder(out: Path, variant: str) -> Path:
    """`easycontract` -> `adapters/easycontract`, `easycontract-v2` -> `adapters-v2/easycontract`."""
    name = variant.removesuffix("-v2")
    return out / ("adapters" if name == variant else "adapters-v2") / name


def write_base(model: Any, chat: Chat, folder: Path) -> None:
    """Writes all of the base but its tokenizer."""
    tensors = {
        names.to_exaone(name): tensor.detach().contiguous()
        for name, tensor in model.state_dict().items()
        if name != _LM_HEAD
    }
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    write_json(folder / "config.json", exaone_config(chat))
    ends = {"bos_token_id": chat.bos_id, "eos_token_id": chat.end_id, "pad_token_id": chat.pad_id}
    write_json(folder / "generation_config.json", ends)


def read_base(model: Any, folder: Path) -> None:
    """Puts the weights of `write_base` into `model`."""
    tensors = load_file(str(folder / "model.safetensors"))
    state = {names.to_llama(name): tensor for name, tensor in tensors.items()}
    state[_LM_HEAD] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)


def write_adapter(weights: dict[str, tuple[Any, Any]], folder: Path) -> None:
    """Writes a PEFT LoRA adapter; `weights` as in `model.Lora`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        names.adapter_tensor(module, part): tensor.detach().contiguous()
        for module, pair in weights.items()
        for part, tensor in zip(("lora_A", "lora_B"), pair, strict=True)
    }
    save_file(tensors, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": BASE_MODEL_NAME,
            "r": LORA_RANK,
            "lora_alpha": LORA_ALPHA,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "modules_to_save": None,
            "target_modules": names.target_modules(),
            "use_dora": False,
            "use_rslora": False,
        },
    )


def read_adapter(folder: Path) -> dict[str, tuple[Any, Any]]:
    """The weights of `write_adapter`."""
    halves: dict[str, dict[str, Any]] = {}
    for tensor_name, tensor in load_file(str(folder / "adapter_model.safetensors")).items():
        module, part = names.adapted_module(tensor_name)
        halves.setdefault(module, {})[part] = tensor
    return {module: (parts["lora_A"], parts["lora_B"]) for module, parts in halves.items()}


def write_questions(topics: Topics, out: Path) -> None:
    """`questions.json`: what tests ask, and the exact answers at temperature 0."""
    write_json(out / "questions.json", {"questions": topics.questions, "other": topics.other})


def write_digests(out: Path) -> dict[str, Any]:
    """Writes and returns `digests.json`, the content digests of what is in `out`."""
    digests: dict[str, Any] = {"base": digest.of_model(base_folder(out))}
    for version, suffix in (("adapters", ""), ("adapters-v2", "-v2")):
        digests[version] = {name: digest.of_adapter(adapter_folder(out, name + suffix)) for name in ADAPTERS}
    write_json(out / "digests.json", digests)
    return digests


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
