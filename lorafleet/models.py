"""Looks at a base model's folder: is it complete, of the right architecture, and in safetensors?"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafleet import exaone, files, safetensors
from lorafleet.digest import content_bytes
from lorafleet.errors import Problem, listed, shown

_ALLOWED = "a folder with config.json, *.safetensors, tokenizer.json and a chat template"
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_LICENCE_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What the files of a base model say: its sizes, and how many bytes it takes."""

    shape: exaone.Shape
    size_bytes: int


def inspect(folder: Path) -> BaseFacts:
    """Look at a base model's files; weights are not read. Raises `Problem`."""
    files.check_folder(folder, "the base model's folder", allowed=_ALLOWED)
    config = files.read_json(folder / "config.json", "config.json", allowed=_ALLOWED)
    _check_architecture(config)
    shape = exaone.shape_of(config)
    tensors: dict[str, safetensors.Tensor] = {}
    for name in _weight_files(folder):
        tensors |= safetensors.read_header(folder / name, name)
    _check_tensors(tensors, shape)
    _check_tokenizer(folder)
    return BaseFacts(shape, content_bytes(folder, "model"))


def _check_architecture(config: dict[str, Any]) -> None:
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or exaone.ARCHITECTURE not in architectures:
        named = architectures[0] if isinstance(architectures, list) and architectures else None
        raise Problem(
            "the model is of another architecture",
            found=f"architectures: {shown(named)}",
            allowed=exaone.ARCHITECTURE,
            next_action="Name an EXAONE 3.x model; one that was converted to the Llama layout is not served.",
        )
    if config.get("model_type") != exaone.MODEL_TYPE:
        raise Problem(
            "the model is of another type",
            found=f"model_type: {shown(config.get('model_type'))}",
            allowed=exaone.MODEL_TYPE,
            next_action="Copy the config.json that was published with the model.",
        )


def _weight_files(folder: Path) -> list[str]:
    if (folder / _INDEX).exists():
        weights = files.read_json(folder / _INDEX, _INDEX).get("weight_map")
        names = set(weights.values()) if isinstance(weights, dict) and all(map(_is_name, weights.values())) else set()
        if names:
            return sorted(names)
        raise Problem(
            f"{_INDEX} names no weights",
            found="no usable weight_map",
            allowed="a weight_map from tensors to files of this folder",
            next_action="Copy the file again from where the model was published.",
        )
    if (folder / _SINGLE).exists() or (folder / _SINGLE).is_symlink():
        return [_SINGLE]
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickles:
        raise Problem(
            "the model's weights are pickles, which can run code when they are loaded",
            found=listed(pickles[:3], "and"),
            allowed=f"{_SINGLE}, or parts with {_INDEX}",
            next_action="Convert them: AutoModelForCausalLM.from_pretrained(...).save_pretrained(FOLDER, "
            "safe_serialization=True).",
        )
    raise Problem(
        "the folder has no weights",
        found="no *.safetensors that counts",
        allowed=f"{_SINGLE}, or parts with {_INDEX}",
        next_action="Copy the missing files; a part without its index does not count.",
    )


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and "/" not in name


def _check_tensors(tensors: dict[str, safetensors.Tensor], shape: exaone.Shape) -> None:
    embedding = tensors.get(exaone.EMBEDDING)
    llama = next((name for name in tensors if exaone.is_llama_name(name)), None)
    if embedding is None or llama:
        raise Problem(
            "the weights do not have EXAONE's names",
            found=f"a tensor {safetensors.shown_name(llama)}" if llama else f"no tensor {exaone.EMBEDDING}",
            allowed="names as in transformer.h.0.attn.attention.q_proj.weight",
            next_action="Copy the weights that were published with this config.json, not converted ones.",
        )
    wanted: dict[str, tuple[int, ...]] = {exaone.EMBEDDING: (shape.vocabulary, shape.hidden)}
    for layer in range(shape.layers):
        for module, parent in exaone.MODULES.items():
            wanted[f"transformer.h.{layer}.{parent}.{module}.weight"] = shape.module(module)
    for name, dimensions in wanted.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.shape != dimensions:
            raise Problem(
                "the weights do not fit config.json",
                found=f"{name}: {list(tensor.shape) if tensor else 'missing'}",
                allowed=f"{name}: {list(dimensions)}",
                next_action="Take config.json and the weights from the same revision.",
            )


def _check_tokenizer(folder: Path) -> None:
    files.read_json(folder / "tokenizer.json", "tokenizer.json", allowed=_ALLOWED)
    settings = files.read_json(folder / "tokenizer_config.json", "tokenizer_config.json", allowed=_ALLOWED)
    template = settings.get("chat_template")
    alone = [name for name in ("chat_template.jinja", "chat_template.json") if (folder / name).is_file()]
    if not alone and not (isinstance(template, str | list) and template):
        raise Problem(
            "the model has no chat template, so it could not answer chat requests",
            found="no chat_template in tokenizer_config.json and no chat_template.jinja",
            allowed="one of both",
            next_action="Copy tokenizer_config.json from where the model was published.",
        )


def licence_texts(folder: Path) -> list[str]:
    """What the files beside the weights say of their licence: a LICENSE, a model card, what a mirror noted."""
    texts = []
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "README.md", "lorafleet.json"):
        with contextlib.suppress(OSError), (folder / name).open(encoding="utf-8", errors="replace") as file:
            texts.append(file.read(_LICENCE_CHARACTERS))
    return texts
