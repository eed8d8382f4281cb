"""A small project on disk for the tests of the declaration: a model of EXAONE's layout with two adapters.

The weights are zeros: nothing here runs them, only names, shapes and digests are looked at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lorafleet.declaration import Fleet
from lorafleet.digest import Kind, content_digest
from lorafleet.load import load_fleet, load_stack
from lorafleet.plan import Plan, resolve

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCABULARY = 2, 16, 4, 2, 4, 32, 64
RANK = 8
# (outputs, inputs), written out here and not taken from lorafleet.exaone, so that the tests can disagree with it.
SHAPES = {
    "attn.attention.q_proj": (16, 16),
    "attn.attention.k_proj": (8, 16),
    "attn.attention.v_proj": (8, 16),
    "attn.attention.out_proj": (16, 16),
    "mlp.c_fc_0": (32, 16),
    "mlp.c_fc_1": (32, 16),
    "mlp.c_proj": (16, 32),
}
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}
MODEL_CONFIG: dict[str, Any] = {
    "architectures": ["ExaoneForCausalLM"],
    "model_type": "exaone",
    "hidden_size": HIDDEN,
    "num_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "intermediate_size": INTERMEDIATE,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 1024,
    "torch_dtype": "float32",
}
ADAPTER_CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "tiny-base",
    "r": RANK,
    "lora_alpha": 16,
    "bias": "none",
    "target_modules": [name.rsplit(".", 1)[-1] for name in SHAPES],
    "modules_to_save": None,
}

Tensors = dict[str, tuple[str, tuple[int, ...]]]


def safetensors_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]], fill: int = 0) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * WIDTHS[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes([fill]) * position


def model_tensors() -> Tensors:
    tensors: Tensors = {"transformer.wte.weight": ("F32", (VOCABULARY, HIDDEN))}
    for layer in range(LAYERS):
        for name, shape in SHAPES.items():
            tensors[f"transformer.h.{layer}.{name}.weight"] = ("F32", shape)
    return tensors


def adapter_tensors(rank: int = RANK) -> Tensors:
    tensors: Tensors = {}
    for layer in range(LAYERS):
        for name, (outputs, inputs) in SHAPES.items():
            start = f"base_model.model.transformer.h.{layer}.{name}"
            tensors[f"{start}.lora_A.weight"] = ("F32", (rank, inputs))
            tensors[f"{start}.lora_B.weight"] = ("F32", (outputs, rank))
    return tensors


class Project:
    """The good project. A test changes `fleet` or the files, and may call `pin` to make the digests right again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = root / "models" / "base"
        self.stack_file = root / "stacks" / "Pulumi.local.yaml"
        self.stack_file.parent.mkdir(parents=True)
        python = root / ".venv-serving" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\n")
        python.chmod(0o755)
        self._write_base()
        for number, name in enumerate(("easycontract", "checklist")):
            self.adapter(name).mkdir(parents=True)
            self.write_adapter(name, fill=number)
        self.fleet: dict[str, Any] = {
            "baseModel": {
                "name": "exaone-3.5-2.4b",
                "source": "file://models/base",
                "license": "none needed",
                "trainedAs": ["tiny-base"],
            },
            "adapters": {
                "easycontract": {"source": "file://models/easycontract", "description": "plain words"},
                "checklist": {"source": "file://models/checklist"},
            },
            "targets": {
                "server": {
                    "kind": "local",
                    "port": 8101,
                    "maxInFlight": 16,
                    "engine": {"device": "cpu", "maxModelLen": 512, "kvCacheMib": 64, "maxLoraRank": 16},
                }
            },
            "router": {"port": 8100, "metricsPort": 8102, "limits": {"maxTokens": 256}},
            "release": {
                "baseModel": {"digest": self.digest(self.base, "model")},
                "adapters": {
                    name: self.digest(self.adapter(name), "adapter") for name in ("easycontract", "checklist")
                },
            },
        }

    def adapter(self, name: str) -> Path:
        return self.root / "models" / name

    def digest(self, folder: Path, kind: Kind) -> str:
        return content_digest(folder, kind)

    def pin(self) -> None:
        """Pin what the folders hold now, so that a test of something else does not meet a wrong digest."""
        self.fleet["release"]["baseModel"]["digest"] = self.digest(self.base, "model")
        for name in self.fleet["adapters"]:
            self.fleet["release"]["adapters"][name] = self.digest(self.adapter(name), "adapter")

    def write_adapter(
        self, name: str, *, config: Mapping[str, Any] | None = None, tensors: Tensors | None = None, fill: int = 0
    ) -> None:
        folder = self.adapter(name)
        (folder / "adapter_config.json").write_text(json.dumps({**ADAPTER_CONFIG, **(config or {})}))
        raw = safetensors_bytes(adapter_tensors() if tensors is None else tensors, fill)
        (folder / "adapter_model.safetensors").write_bytes(raw)

    def write_stack(self) -> None:
        """Write the stack's file from `fleet`."""
        text = yaml.safe_dump({"config": {"serving:fleet": self.fleet}}, sort_keys=False, allow_unicode=True)
        self.stack_file.write_text(text)

    def load(self) -> Fleet:
        """Load it as the `lorafleet` command does."""
        return load_stack(self.root, "local")

    def load_config(self) -> Fleet:
        """Load it as a Pulumi program does: from values, with the file at hand."""
        return load_fleet(self.fleet, environment="local", root=self.root, stack_file=self.stack_file)

    def plan(self) -> Plan:
        self.write_stack()
        return resolve(self.load())

    def _write_base(self) -> None:
        self.base.mkdir(parents=True)
        (self.base / "config.json").write_text(json.dumps(MODEL_CONFIG))
        (self.base / "generation_config.json").write_text("{}")
        (self.base / "tokenizer.json").write_text('{"model": {}}')
        (self.base / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
        (self.base / "model.safetensors").write_bytes(safetensors_bytes(model_tensors()))
