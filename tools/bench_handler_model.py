"""`python -m tools.bench_handler_model FOLDER`: the demo model and its adapters made larger, with the same answers.

For benchmarks in which the model's own work must matter (79 million parameters instead of 0.7). What is added is
random, and wired so that it adds nothing: it writes only zeros into what the demo's part reads. So answers can still be
checked.

In the environment of the Vertex handler (torch, safetensors).
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parents[1] / "demo"
ADAPTERS = ("easycontract", "checklist")
WIDTH, LAYERS, HEADS, KV_HEADS, INNER, RANK = 768, 12, 12, 6, 2048, 16
SPREAD = 0.02
READS = ("q_proj", "k_proj", "v_proj", "c_fc_0", "c_fc_1")
"""modules whose added outputs nobody hears of; those of the others are added to what the demo's part reads"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench_handler_model")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    import torch  # type: ignore[import-not-found]

    torch.manual_seed(1)
    base(torch, folder / "base")
    for name in ADAPTERS:
        adapter(torch, DEMO / "adapters" / name, folder / name)
    return 0


def sizes(config: dict[str, Any], heads: int, kv_heads: int, width: int, inner: int) -> dict[str, tuple[int, int]]:
    """(out, in) of each module"""
    head = config["head_dim"]
    return {
        "q_proj": (heads * head, width), "k_proj": (kv_heads * head, width), "v_proj": (kv_heads * head, width),
        "out_proj": (width, heads * head), "c_fc_0": (inner, width), "c_fc_1": (inner, width), "c_proj": (width, inner),
    }  # fmt: skip


def base(torch: Any, folder: Path) -> None:
    from safetensors.torch import load_file, save_file  # type: ignore[import-not-found]

    folder.mkdir(parents=True)
    for file in (DEMO / "base").iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copy(file, folder)
    config = json.loads((DEMO / "base" / "config.json").read_text())
    small = load_file(DEMO / "base" / "model.safetensors")
    # The norm divides by the mean over all of the width, most of which is zero.
    shrink = math.sqrt(config["hidden_size"] / WIDTH)
    state: dict[str, Any] = {}
    for name, tensor in small.items():
        if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")):
            state[name] = torch.ones(WIDTH)
            state[name][: len(tensor)] = tensor * shrink
        elif name.endswith("wte.weight"):
            state[name] = corner(torch, tensor, (tensor.shape[0], WIDTH))
    names = sizes(config, HEADS, KV_HEADS, WIDTH, INNER)
    # Query heads find their key head by the ratio of the two numbers: another ratio would give them other partners.
    assert config["num_attention_heads"] * KV_HEADS == config["num_key_value_heads"] * HEADS
    for layer in range(LAYERS):
        for short, shape in names.items():
            inner = "mlp." if short.startswith("c_") else "attn.attention."
            name = f"transformer.h.{layer}.{inner}{short}.weight"
            # Random where nobody listens; an added layer writes zeros only.
            fresh = torch.randn(shape) * SPREAD if short in READS else torch.zeros(shape)
            if name in small:
                place(fresh, small[name], short)
            state[name] = fresh
        for norm in ("ln_1", "ln_2"):
            state.setdefault(f"transformer.h.{layer}.{norm}.weight", torch.ones(WIDTH))
    config.update(
        hidden_size=WIDTH, num_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
        intermediate_size=INNER,
        # beside the mean of the squares, which shrinks with the width
        layer_norm_epsilon=config["layer_norm_epsilon"] * shrink**2,
    )  # fmt: skip
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    print(f"the larger model: {sum(tensor.numel() for tensor in state.values()) / 1e6:.0f} million parameters")


def place(fresh: Any, old: Any, short: str) -> None:
    """The demo's weights come first in each dimension; they read nothing of what was added."""
    rows, columns = old.shape
    if short in READS:
        fresh[:rows] = 0
    fresh[:rows, :columns] = old


def corner(torch: Any, old: Any, shape: tuple[int, ...]) -> Any:
    fresh = torch.zeros(shape)
    fresh[: old.shape[0], : old.shape[1]] = old
    return fresh


def adapter(torch: Any, source: Path, folder: Path) -> None:
    """Rank 16 with the same effect: alpha grows as the rank does."""
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True)
    config = json.loads((source / "adapter_config.json").read_text())
    names = sizes(json.loads((DEMO / "base" / "config.json").read_text()), HEADS, KV_HEADS, WIDTH, INNER)
    state: dict[str, Any] = {}
    for name, tensor in load_file(source / "adapter_model.safetensors").items():
        out, into = names[name.split(".lora_")[0].rpartition(".")[2]]
        state[name] = corner(torch, tensor, (RANK, into) if ".lora_A." in name else (out, RANK))
    config["lora_alpha"] = config["lora_alpha"] * RANK // config["r"]
    config["r"] = RANK
    save_file(state, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))


if __name__ == "__main__":
    sys.exit(main())
