"""Looks at a LoRA adapter's folder: can the server load it, and was it made for this base?"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafleet import exaone, files, safetensors
from lorafleet.digest import ADAPTER_FILES, content_bytes
from lorafleet.errors import Problem, listed, nearest, shown

CONFIG, WEIGHTS = ADAPTER_FILES
_ALLOWED = f"a folder with {CONFIG} and {WEIGHTS}"
_TENSOR = re.compile(
    r"base_model\.model\.transformer\.h\.(?P<layer>\d{1,4})\.(?P<parent>attn\.attention|mlp)\."
    r"(?P<module>[a-z0-9_]+)\.lora_(?P<side>[AB])\.weight"
)
_FLOATS = ("F32", "F16", "BF16")
# Two tensors for each module of each layer: a real header has some 100 KiB.
_MAX_HEADER_BYTES = 8 << 20
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

# Settings of PEFT that vLLM refuses or, worse, ignores: then it would answer with other weights than were
# trained.
_MUST_BE_OFF = {
    "modules_to_save": "whole modules that were trained beside the LoRA weights",
    "use_dora": "DoRA",
    "rank_pattern": "another rank for some modules",
    "alpha_pattern": "another alpha for some modules",
    "layer_replication": "repeated layers",
    "lora_bias": "a bias beside the LoRA weights",
    "fan_in_fan_out": "transposed weights",
    "trainable_token_indices": "trained tokens",
}


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What the files of an adapter say.

    Fields:
        rank: LoRA rank.
        size_bytes: how many bytes its files take.
        alpha: scale of the LoRA weights.
        base_name: `base_model_name_or_path`.
        base_revision: commit of the base that it was trained on, where the training noted it.
        modules: the modules that it changes, such as `q_proj`, sorted; as its tensors say.
        dtype: the number format of its weights, such as `F32`; several are joined by `+`.
        tensors: its tensors by name.
    """

    rank: int
    size_bytes: int
    alpha: float
    base_name: str
    base_revision: str | None
    modules: tuple[str, ...]
    dtype: str
    tensors: Mapping[str, safetensors.Tensor]


def inspect(folder: Path, *, base_names: Collection[str], shape: exaone.Shape | None) -> AdapterFacts:
    """Look at an adapter's files; weights are not read.

    Args:
        folder: the adapter's folder.
        base_names: values of `base_model_name_or_path` that mean the declared base.
        shape: the base's sizes, or None when its files can't be looked at.

    Raises:
        Problem: the first thing that is wrong.
    """
    files.check_folder(folder, "the adapter's folder", allowed=_ALLOWED)
    check_names([path.name for path in folder.iterdir()])
    config = files.read_json(folder / CONFIG, CONFIG, allowed=_ALLOWED)
    rank = _check_config(config, base_names)
    tensors = safetensors.read_header(folder / WEIGHTS, WEIGHTS, max_bytes=_MAX_HEADER_BYTES)
    _check_tensors(tensors, rank, config["target_modules"], shape)
    revision = config.get("revision")
    return AdapterFacts(
        rank=rank,
        size_bytes=content_bytes(folder, "adapter"),
        alpha=config["lora_alpha"],
        base_name=config["base_model_name_or_path"],
        base_revision=revision if isinstance(revision, str) and 0 < len(revision) <= 100 else None,
        modules=tuple(sorted({name.split(".")[-3] for name in tensors})),
        dtype="+".join(sorted({tensor.dtype for tensor in tensors.values()})),
        tensors=tensors,
    )


def check_names(names: Collection[str]) -> None:
    """Raise `Problem` if the files of an adapter's folder hold its weights as a pickle alone."""
    pickles = sorted(name for name in names if name.endswith(_PICKLES))
    if pickles and WEIGHTS not in names:
        raise Problem(
            "the adapter is a pickle, which can run code when it is loaded",
            found=listed(pickles[:3], "and"),
            allowed=WEIGHTS,
            next_action="Convert it: PeftModel.from_pretrained(base, FOLDER).save_pretrained(NEW_FOLDER), "
            "with the option safe_serialization=True.",
        )


def _check_config(config: dict[str, Any], base_names: Collection[str]) -> int:
    if config.get("peft_type") != "LORA":
        raise Problem(
            "the adapter is not a LoRA adapter",
            found=f"peft_type: {shown(config.get('peft_type'))}",
            allowed="peft_type: LORA",
            next_action="Train the adapter with LoraConfig.",
        )
    _check_base(config.get("base_model_name_or_path"), base_names)
    rank = config.get("r")
    if type(rank) is not int or not 1 <= rank <= 512:
        raise Problem(
            "the adapter's rank is not usable",
            found=f"r: {shown(rank)}",
            allowed="r: a whole number from 1 to 512",
            next_action=f"Copy {CONFIG} again from where the adapter was trained.",
        )
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1e6:
        raise Problem(
            "the adapter's alpha is not usable",
            found=f"lora_alpha: {shown(alpha)}",
            allowed="lora_alpha: a positive number",
            next_action=f"Copy {CONFIG} again from where the adapter was trained.",
        )
    for key, meaning in _MUST_BE_OFF.items():
        if config.get(key):
            raise Problem(
                f"the adapter has {meaning}, which the server can't load",
                found=f"{key} is set",
                allowed=f"{key}: null, false or empty",
                next_action=f"Train the adapter without {key}.",
            )
    if config.get("bias", "none") != "none":
        raise Problem(
            "the adapter has trained biases, which the server can't load",
            found=f"bias: {shown(config['bias'])}",
            allowed="bias: none",
            next_action='Train the adapter with bias="none".',
        )
    _check_target_modules(config.get("target_modules"))
    return rank


def _check_base(name: object, base_names: Collection[str]) -> None:
    if not isinstance(name, str) or name.rstrip("/") not in base_names:
        raise Problem(
            "the adapter was made for another base model",
            found=f"base_model_name_or_path: {shown(name)}",
            allowed=listed(sorted(base_names)),
            next_action="Name an adapter that was trained on this base. If only the name differs, "
            "add the name to `baseModel.trainedAs`.",
        )


def _check_target_modules(modules: object) -> None:
    if isinstance(modules, str) and modules:
        return  # an expression; the tensors show what it matched
    if not isinstance(modules, list) or not modules or not all(isinstance(module, str) for module in modules):
        raise Problem(
            "the adapter does not say which modules it changes",
            found=f"target_modules: {shown(modules)}",
            allowed=f"a list out of {listed(exaone.MODULES)}",
            next_action=f"Copy {CONFIG} again from where the adapter was trained.",
        )
    for module in modules:
        if exaone.is_llama_name(module):
            raise _llama(f"target_modules: {shown(module)}")
        if module.rsplit(".", 1)[-1] not in exaone.MODULES:
            near = nearest(module, exaone.MODULES)
            raise Problem(
                "the adapter changes a module that EXAONE does not have or LoRA can't go on",
                found=f"target_modules: {shown(module)}",
                allowed=listed(exaone.MODULES),
                next_action=f"Did you mean {near}? Train the adapter with these modules."
                if near
                else "Train the adapter with these modules.",
            )


def _llama(found: str) -> Problem:
    return Problem(
        "the adapter has the names of the Llama layout, so it was trained on a converted model",
        found=found,
        allowed=f"EXAONE's modules: {listed(exaone.MODULES)}",
        next_action=exaone.LLAMA_HINT,
    )


def _check_tensors(
    tensors: dict[str, safetensors.Tensor], rank: int, modules: object, shape: exaone.Shape | None
) -> None:
    if not tensors:
        raise Problem(
            f"{WEIGHTS} has no tensors",
            found="0 tensors",
            allowed="lora_A and lora_B of each module",
            next_action="Save the adapter again with save_pretrained.",
        )
    targets = {module.rsplit(".", 1)[-1] for module in modules} if isinstance(modules, list) else set(exaone.MODULES)
    # All names first: a foreign tensor says more about what went wrong than its missing partner does.
    matches = {name: _match(name, targets) for name in tensors}
    for name, match in matches.items():
        _check_tensor(name, tensors[name], match, rank, shape)
        other = "B" if match["side"] == "A" else "A"
        partner = name.replace(f".lora_{match['side']}.weight", f".lora_{other}.weight")
        if partner not in tensors:
            raise Problem(
                "the adapter has one half of a pair of tensors",
                found=f"{safetensors.shown_name(name)} without lora_{other}",
                allowed="lora_A and lora_B of each module",
                next_action="Save the adapter again with save_pretrained.",
            )


def _match(name: str, targets: set[str]) -> re.Match[str]:
    """The parts of a tensor's name. Raises `Problem` if it is none of an adapter of these modules."""
    if exaone.is_llama_name(name):
        raise _llama(f"a tensor {safetensors.shown_name(name)}")
    match = _TENSOR.fullmatch(name)
    if not match or exaone.MODULES.get(match["module"]) != match["parent"] or match["module"] not in targets:
        raise Problem(
            "the adapter has a tensor that does not belong to its modules",
            found=safetensors.shown_name(name),
            allowed="base_model.model.transformer.h.<layer>.<module>.lora_A.weight (or lora_B) of "
            f"{listed(sorted(targets))}",
            next_action="Save the adapter again with save_pretrained, for LoRA weights alone.",
        )
    return match


def _check_tensor(
    name: str, tensor: safetensors.Tensor, match: re.Match[str], rank: int, shape: exaone.Shape | None
) -> None:
    if tensor.dtype not in _FLOATS:
        raise Problem(
            "the adapter's weights have a number format that the server can't load",
            found=f"{safetensors.shown_name(name)}: {tensor.dtype}",
            allowed=listed(_FLOATS),
            next_action="Save the adapter in one of these formats.",
        )
    side = match["side"]
    rank_axis = 0 if side == "A" else 1
    if len(tensor.shape) != 2 or tensor.shape[rank_axis] != rank:
        raise Problem(
            f"a tensor does not have the rank that {CONFIG} states",
            found=f"{safetensors.shown_name(name)}: {list(tensor.shape)}",
            allowed=f"{rank} {'rows' if side == 'A' else 'columns'}",
            next_action=f"Take {CONFIG} and {WEIGHTS} from the same training run.",
        )
    if shape is None:
        return
    layer, module = int(match["layer"]), match["module"]
    outputs, inputs = shape.module(module)
    expected = inputs if side == "A" else outputs
    wanted = [rank, inputs] if side == "A" else [outputs, rank]
    if layer >= shape.layers or tensor.shape[1 - rank_axis] != expected:
        raise Problem(
            "the adapter was made for another base model: its tensors do not fit",
            found=f"{safetensors.shown_name(name)}: {list(tensor.shape)}",
            allowed=f"{shape.layers} layers; for {module} {wanted}",
            next_action="Name an adapter that was trained on this base.",
        )
