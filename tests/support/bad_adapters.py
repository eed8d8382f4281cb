"""Adapters that must be refused, and some that look odd and must not be: each is a change to a copy of a good one.

`REFUSED` and `ACCEPTED` hold them by a name for the test. A refused one comes with words that its error must have in
the first line or in `found`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
LAYER = "base_model.model.transformer.h.0.attn.attention.q_proj"
Change = Callable[[Path], object]
Header = dict[str, Any]


@dataclass(frozen=True)
class Odd:
    """A change to a good adapter's folder, and words of the error (None: it must be accepted)."""

    change: Change
    says: str | None = None


REFUSED: dict[str, Odd] = {}
ACCEPTED: dict[str, Odd] = {}


def refuse(name: str, says: str, change: Change) -> None:
    assert name not in REFUSED
    REFUSED[name] = Odd(change, says)


def accept(name: str, change: Change) -> None:
    assert name not in ACCEPTED
    ACCEPTED[name] = Odd(change)


# Ways to change a file.


def raw(change: Callable[[bytes], bytes], name: str = WEIGHTS) -> Change:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return apply


def parts(data: bytes) -> tuple[Header, bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def header(change: Callable[[Header], object]) -> Change:
    """Change the header alone."""

    def apply(data: bytes) -> bytes:
        found, body = parts(data)
        change(found)
        return with_header(json.dumps(found).encode(), body)

    return raw(apply)


def entry(**changes: Any) -> Change:
    return header(lambda found: found[f"{LAYER}.lora_A.weight"].update(changes))


def rename(old: str, new: str, times: int = 1) -> Change:
    def change(found: Header) -> None:
        names = [name for name in found if old in name][:times]
        for name in names:
            found[name.replace(old, new)] = found.pop(name)

    return header(change)


def tensors(change: Callable[[dict[str, tuple[str, list[int], bytes]]], object]) -> Change:
    """Change names, formats, shapes and numbers; the file is written anew and is whole."""

    def apply(data: bytes) -> bytes:
        found, body = parts(data)
        found.pop("__metadata__", None)
        all_of_them = {
            name: (one["dtype"], one["shape"], body[slice(*one["data_offsets"])]) for name, one in found.items()
        }
        change(all_of_them)
        new, position = {}, 0
        for name, (dtype, shape, numbers) in all_of_them.items():
            new[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(numbers)]}
            position += len(numbers)
        return with_header(json.dumps(new).encode(), b"".join(numbers for _, _, numbers in all_of_them.values()))

    return raw(apply)


def number(bits: bytes, dtype: str = "F32", place: int = 0) -> Change:
    """One number of a tensor has these bits; the whole adapter is turned to the format `dtype`."""

    def change(found: dict[str, tuple[str, list[int], bytes]]) -> None:
        for name, (_, shape, numbers) in list(found.items()):
            width = 4 if dtype == "F32" else 2
            found[name] = (dtype, shape, numbers if width == 4 else b"\x00\x01" * (len(numbers) // 4))
        name = f"{LAYER}.lora_B.weight"
        _, shape, numbers = found[name]
        at = place % len(numbers)
        found[name] = (dtype, shape, numbers[:at] + bits + numbers[at + len(bits) :])

    return tensors(change)


def all_as(dtype: str, width: int) -> Change:
    def change(found: dict[str, tuple[str, list[int], bytes]]) -> None:
        for name, (_, shape, numbers) in list(found.items()):
            found[name] = (dtype, shape, bytes(len(numbers) // 4 * width))

    return tensors(change)


def config(**changes: Any) -> Change:
    def apply(folder: Path) -> None:
        document = json.loads((folder / CONFIG).read_text())
        for key, value in changes.items():
            if value is ...:
                document.pop(key)
            else:
                document[key] = value
        (folder / CONFIG).write_text(json.dumps(document))

    return apply


def both(*changes: Change) -> Change:
    def apply(folder: Path) -> None:
        for change in changes:
            change(folder)

    return apply


def replaced(name: str, make: Callable[[Path], object]) -> Change:
    def apply(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return apply


def added(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def moved_out(name: str) -> Change:
    """The file is a link to one outside of the folder."""

    def apply(folder: Path) -> None:
        outside = folder.parent / f"outside-{folder.name}-{name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return apply


def file_for_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def one_below(folder: Path) -> None:
    (folder / "sub").mkdir()
    for name in (CONFIG, WEIGHTS):
        (folder / name).rename(folder / "sub" / name)


def link_inside(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "step-1")
    (folder / WEIGHTS).symlink_to("step-1")


def sparse(name: str, size: int) -> Change:
    return lambda folder: os.truncate(folder / name, size)


def listening(path: Path) -> None:
    # A socket's path may have 108 bytes only, and a test's folder is longer than that.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def rank(value: int) -> Change:
    """A whole and right adapter of another rank."""

    def change(found: dict[str, tuple[str, list[int], bytes]]) -> None:
        for name, (dtype, shape, _) in list(found.items()):
            new = [value, shape[1]] if ".lora_A." in name else [shape[0], value]
            found[name] = (dtype, new, struct.pack("<f", 0.5) * (new[0] * new[1]))

    return both(config(r=value), tensors(change))


# The file of weights: cut off, or something else.
broken = "cut off or damaged"
refuse("one byte short", broken, raw(lambda data: data[:-1]))
refuse("half of it", broken, raw(lambda data: data[: len(data) // 2]))
refuse("four bytes", broken, raw(lambda data: data[:4]))
refuse("empty weights", "is empty", raw(lambda data: b""))
refuse("bytes too many", "too many at the end", raw(lambda data: data + b"x"))
refuse("header of 2^63 bytes", broken, raw(lambda data: struct.pack("<Q", 1 << 63) + data[8:]))
refuse("header longer than the file", broken, raw(lambda data: struct.pack("<Q", len(data)) + data[8:]))
refuse("header of no bytes", broken, raw(lambda data: struct.pack("<Q", 0) + data[8:]))
refuse("header of 9 MB of names", "too long", header(lambda found: found.update(__metadata__={"a": "x" * (9 << 20)})))
refuse("header of 9 MB of spaces", "too long", raw(lambda data: with_header(b" " * (9 << 20), b"")))
refuse("header that is no JSON", "not valid JSON", raw(lambda data: with_header(b"{not json", b"")))
refuse("header that is a list", "not valid JSON", raw(lambda data: with_header(b"[]", b"")))
refuse("header with a bomb of brackets", "not valid JSON", raw(lambda data: with_header(b"[" * 100000, b"")))
refuse("header that is no UTF-8", "not valid JSON", raw(lambda data: with_header(b'{"\xff": 1}', b"")))
refuse(
    "tensor that stands twice",
    "a key that stands twice",
    raw(lambda data: with_header(b'{"a": {"dtype": "F32"}, "a": {"dtype": "F32"}}', b"")),
)
refuse("zip of a pickle", "a pickle", raw(lambda data: b"PK\x03\x04" + data))
refuse("bare pickle", "a pickle", raw(lambda data: b"\x80\x04\x95" + data))
refuse(
    "Git LFS pointer", "LFS pointer", raw(lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
)
refuse("page of a login", broken, raw(lambda data: b"<!doctype html><title>Log in</title>"))

# Its header: tensors that can't be.
refuse("gap between tensors", broken, header(lambda found: found.pop(f"{LAYER}.lora_A.weight")))
refuse(
    "overlapping tensors",
    broken,
    header(lambda found: found.update({"copy": dict(found[f"{LAYER}.lora_A.weight"])})),
)
refuse("negative offset", broken, entry(data_offsets=[-4, 4092]))
refuse("offset that is a text", broken, entry(data_offsets=["0", "4096"]))
refuse("offset that is a fraction", broken, entry(data_offsets=[0.0, 4096.0]))
refuse("three offsets", broken, entry(data_offsets=[0, 1, 2]))
refuse("no offsets", broken, header(lambda found: found[f"{LAYER}.lora_A.weight"].pop("data_offsets")))
refuse("shape that does not fit its bytes", broken, entry(shape=[8, 127]))
refuse("negative shape", broken, entry(shape=[-8, -128]))
refuse("shape of 2^80 numbers", broken, entry(shape=[1 << 40, 1 << 40]))
refuse("shape of truth values", broken, entry(shape=[True, 1024]))
refuse("number format of nobody", broken, entry(dtype="F128"))
refuse("number format that is a list", broken, entry(dtype=["F32"]))
refuse("tensor that is a number", broken, header(lambda found: found.update({f"{LAYER}.lora_A.weight": 7})))

# Whole files with the wrong things in them.
for dtype, width in (("F64", 8), ("I64", 8), ("I32", 4), ("I8", 1), ("U8", 1), ("BOOL", 1), ("F8_E4M3", 1)):
    refuse(f"weights in {dtype}", "number format", all_as(dtype, width))
finite = "not finite numbers"
refuse("NaN in F32", finite, number(struct.pack("<f", float("nan"))))
refuse("signalling NaN in F32", finite, number(b"\x01\x00\x80\x7f"))
refuse("infinity in F32", finite, number(struct.pack("<f", float("inf")), place=40))
refuse("minus infinity as the last number", finite, number(struct.pack("<f", float("-inf")), place=-4))
refuse("NaN in F16", finite, number(b"\x01\x7e", "F16"))
refuse("infinity in F16", finite, number(b"\x00\xfc", "F16", place=-2))
refuse("NaN in BF16", finite, number(b"\xc0\x7f", "BF16"))
refuse("infinity in BF16", finite, number(b"\x80\xff", "BF16", place=-2))
huge = "weights that are too large"


def times(factor: float) -> Change:
    """All numbers of lora_B are multiplied."""

    def change(found: dict[str, tuple[str, list[int], bytes]]) -> None:
        for name, (dtype, shape, numbers) in list(found.items()):
            if ".lora_B." in name:
                count = len(numbers) // 4
                scaled = [factor * one for one in struct.unpack(f"<{count}f", numbers)]
                found[name] = (dtype, shape, struct.pack(f"<{count}f", *scaled))

    return tensors(change)


# The demo's adapter has alpha 16 and rank 8, so the largest weight is 65504 / 2 = 32752.
refuse("weights times 1e18", huge, times(1e18))
refuse("one weight just above what servers take", huge, number(struct.pack("<f", 32752.004), place=-4))
refuse("one weight in F16 just above what servers take", huge, number(struct.pack("<e", -32768), "F16"))
refuse("one weight in BF16 just above what servers take", huge, number(b"\x00\x47", "BF16"))  # 32768
refuse("a weight that alpha makes huge", huge, both(config(lora_alpha=800), number(struct.pack("<f", 656))))
refuse(
    "a weight that alpha makes huge by the root of the rank",
    huge,
    both(config(lora_alpha=800, use_rslora=True), number(struct.pack("<f", 232))),
)
refuse("lora_A without lora_B", "one half of a pair", tensors(lambda found: found.pop(f"{LAYER}.lora_B.weight")))
refuse("lora_B without lora_A", "one half of a pair", tensors(lambda found: found.pop(f"{LAYER}.lora_A.weight")))
refuse("no tensors", "has no tensors", tensors(lambda found: found.clear()))
shape_of = "does not have the rank"


def reshaped(*shape: int) -> Change:
    def change(found: dict[str, tuple[str, list[int], bytes]]) -> None:
        name = f"{LAYER}.lora_A.weight"
        count = 1
        for one in shape:
            count *= one
        found[name] = ("F32", list(shape), struct.pack("<f", 0.5) * count)

    return tensors(change)


refuse("lora_A with one row too few", shape_of, reshaped(7, 128))
refuse("lora_A turned around", shape_of, reshaped(128, 8))
refuse("lora_A of one dimension", shape_of, reshaped(1024))
refuse("lora_A of three dimensions", shape_of, reshaped(8, 128, 1))
refuse("lora_A of no dimension", shape_of, reshaped())
refuse("lora_A for a smaller base", "another base model", reshaped(8, 64))
refuse("lora_A for a larger base", "another base model", reshaped(8, 2560))
foreign = "does not belong to its modules"
refuse("layer that the base lacks", "another base model", rename("transformer.h.2.", "transformer.h.30.", 99))
refuse("layer number of 9 digits", foreign, rename("transformer.h.2.", "transformer.h.123456789.", 99))
refuse("tensor named like a path", foreign, rename(f"{LAYER}.lora_A.weight", "../../../../etc/cron.d/lora"))
refuse("tensor with escapes in its name", foreign, rename(f"{LAYER}.lora_A.weight", "\x1b[31mred\x1b]0;title\x07\n"))
refuse("tensor with a name of 1 MB", foreign, rename(f"{LAYER}.lora_A.weight", "x" * (1 << 20)))
refuse("tensor without a name", foreign, rename(f"{LAYER}.lora_A.weight", ""))
refuse("names of Llama", "Llama layout", rename("transformer.h.0.attn.attention", "model.layers.0.self_attn", 99))
refuse("names of GPT-2", foreign, rename("attn.attention.q_proj", "attn.c_attn", 99))
refuse("module at the wrong place", foreign, rename("attn.attention.q_proj", "mlp.q_proj", 99))
refuse("weights of DoRA", foreign, rename("lora_A.weight", "lora_magnitude_vector"))
refuse("embedding beside LoRA", foreign, rename(f"{LAYER}.lora_A.weight", "base_model.model.transformer.wte.weight"))
refuse("head beside LoRA", foreign, rename(f"{LAYER}.lora_A.weight", "base_model.model.lm_head.weight"))
refuse("tensor of an undeclared module", foreign, config(target_modules=["k_proj"]))

# The configuration.
not_json = "not valid JSON"
refuse("config that is empty", "is empty", raw(lambda data: b"", CONFIG))
refuse("config that is no JSON", not_json, raw(lambda data: b"r = 8", CONFIG))
refuse("config that is a list", not_json, raw(lambda data: b"[8]", CONFIG))
refuse("config cut off", not_json, raw(lambda data: data[:40], CONFIG))
refuse("config in UTF-16", not_json, raw(lambda data: data.decode().encode("utf-16"), CONFIG))
refuse(
    "config with a key twice", "a key that stands twice", raw(lambda data: data.replace(b"{", b'{"r": 4,', 1), CONFIG)
)
refuse("config with a bomb of brackets", not_json, raw(lambda data: b'{"a":' + b"[" * 100000, CONFIG))
refuse("config of 2 MB", "too large", raw(lambda data: data + b" " * (2 << 20), CONFIG))
refuse("prompt tuning", "not a LoRA adapter", config(peft_type="PROMPT_TUNING"))
refuse("no kind", "not a LoRA adapter", config(peft_type=...))
for label, value in {"0": 0, "-8": -8, "a text": "8", "true": True, "a fraction": 8.5, "huge": 10**400}.items():
    refuse(f"rank that is {label}", "rank is not usable", config(r=value))
refuse("rank of another training", shape_of, config(r=4))
refuse("rank above the fleet's", "higher than the fleet takes", rank(64))
alpha = "alpha is not usable"
for label, value in {"nothing": None, "NaN": float("nan"), "infinite": float("inf"), "negative": -1}.items():
    refuse(f"alpha that is {label}", alpha, config(lora_alpha=value))
refuse("alpha that servers refuse", "alpha is larger than servers take", config(lora_alpha=65505))
refuse("alpha that is a text", alpha, config(lora_alpha="16"))
for key, value in {
    "modules_to_save": ["lm_head"],
    "use_dora": True,
    "rank_pattern": {"q_proj": 4},
    "alpha_pattern": {"q_proj": 4},
    "layer_replication": [[0, 2]],
    "lora_bias": True,
    "fan_in_fan_out": True,
    "trainable_token_indices": [1],
}.items():
    refuse(f"adapter with {key}", "which the server can't load", config(**{key: value}))
refuse("adapter with biases", "biases", config(bias="all"))
other_base = "made for another base model"
refuse("adapter of another base", other_base, config(base_model_name_or_path="meta-llama/Llama-3.2-3B"))
refuse("base that is a path", other_base, config(base_model_name_or_path="../../../../etc/passwd"))
refuse("base that is nothing", other_base, config(base_model_name_or_path=None))
refuse("base that is a list", other_base, config(base_model_name_or_path=["lorafleet-demo"]))
modules = "which modules it changes"
for label, value in {"nothing": None, "an empty list": [], "numbers": [1, 2], "a mapping": {"q_proj": 1}}.items():
    refuse(f"target modules that are {label}", modules, config(target_modules=value))
lacks = "a module that EXAONE does not have"
refuse("target module like a path", lacks, config(target_modules=["../../../../etc/passwd"]))
refuse("target module that the base lacks", lacks, config(target_modules=["q_proj", "gate"]))
refuse("target module with escapes", lacks, config(target_modules=["\x1b[31mq_proj\n\n\n"]))
refuse("target module of a million letters", lacks, config(target_modules=["x" * 500_000]))
refuse("target modules of Llama", "Llama layout", config(target_modules=["o_proj"]))

# The folder: things that are no files, links out of it, what is missing.
for name in (CONFIG, WEIGHTS):
    refuse(f"link out of the folder: {name}", "leaves the adapter's folder", moved_out(name))
    refuse(f"link to itself: {name}", "leads to itself", replaced(name, lambda path: path.symlink_to(path.name)))
    refuse(f"link to nowhere: {name}", "leads nowhere", replaced(name, lambda path: path.symlink_to("nothing")))
    refuse(
        f"link to /etc/passwd: {name}",
        "leaves the adapter's",
        replaced(name, lambda path: path.symlink_to("/etc/passwd")),
    )
    refuse(
        f"link upwards: {name}",
        "leaves the adapter's",
        both(added("../up", b"{}"), replaced(name, lambda path: path.symlink_to("../up"))),
    )
    refuse(f"device: {name}", "not a regular file", replaced(name, lambda path: path.symlink_to("/dev/zero")))
    refuse(f"pipe: {name}", "not a regular file", replaced(name, lambda path: os.mkfifo(path)))
    refuse(f"folder: {name}", "not a regular file", replaced(name, lambda path: path.mkdir()))
    refuse(f"missing: {name}", "lacks", replaced(name, lambda path: None))
refuse("socket", "can't be read", replaced(WEIGHTS, listening))
refuse("weights of 20 GiB of nothing", "too large", sparse(WEIGHTS, 20 << 30))
refuse("pickle alone", "is a pickle", lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"))
refuse("checkpoint alone", "is a pickle", lambda folder: (folder / WEIGHTS).rename(folder / "adapter.pt"))
refuse("folder that does not exist", "does not exist", lambda folder: shutil.rmtree(folder))
refuse("folder that is a file", "is not a folder", file_for_folder)
refuse("files one folder below", "lacks", one_below)
refuse("tokens that the base lacks", "tokens that the base does not have", added("added_tokens.json", b'{"<x>": 1536}'))
refuse("tokens that are no JSON", "added_tokens.json", added("added_tokens.json", b"\x1f\x8b" + bytes(100)))
refuse("tokens in a pipe", "added_tokens.json", lambda folder: os.mkfifo(folder / "added_tokens.json"))
refuse("tokens of 2 MB", "added_tokens.json", added("added_tokens.json", b" " * (2 << 20)))

# Odd, but good: nothing but the two files is looked at.
accept("as it is", lambda folder: None)
accept("a tokenizer that is a bomb of zeros", added("tokenizer.json.gz", b"\x1f\x8b" + bytes(1 << 20)))
accept("a tokenizer of 1 TiB", both(added("tokenizer.json", b"{"), sparse("tokenizer.json", 1 << 40)))
accept("a tokenizer that is a pipe", lambda folder: os.mkfifo(folder / "tokenizer.json"))
accept("a readme that is a link out", lambda folder: (folder / "README.md").symlink_to("/etc/passwd"))
accept("a pickle beside good weights", added("training_args.bin", b"\x80\x04."))
accept("a program beside them", added("setup.py", b"raise SystemExit(1)"))
accept("files with paths for names", added("..\\..\\evil.dll", b"x"))
accept("tokens that the base has", added("added_tokens.json", b'{"<x>": 1535}'))
accept("a link inside the folder", link_inside)
accept("weights in BF16", number(b"\x80\x3f", "BF16"))
accept("weights in F16", number(b"\x00\x3c", "F16"))
accept("the largest weight", number(struct.pack("<f", -32752)))
accept("the largest weight in F16", number(struct.pack("<e", 32752), "F16"))
accept("the largest weight in BF16", number(b"\xff\x46", "BF16"))
accept("the largest weight of all", both(config(lora_alpha=8), number(struct.pack("<f", 65504))))
accept("a weight that a large alpha lets pass", both(config(lora_alpha=800), number(struct.pack("<f", 655))))
accept("the highest rank", rank(16))
accept("weights that change nothing", all_as("F32", 4))
