"""The committed demo model is whole and agrees with itself. Read with the standard library alone."""

import hashlib
import json
import struct
from itertools import combinations, pairwise
from math import prod
from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).parents[2] / "demo"
BASE = DEMO / "base"
VARIANTS = ["base", "easycontract", "checklist", "easycontract-v2", "checklist-v2"]
ADAPTERS = [DEMO / version / name for version in ("adapters", "adapters-v2") for name in ("easycontract", "checklist")]
MAX_FILE_BYTES = 4_000_000


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def tensors(path: Path) -> dict[str, list[int]]:
    """{name: shape} of a safetensors file of float32, after checking that it holds them all to the byte."""
    raw = path.read_bytes()
    (header_bytes,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    spans = sorted(tuple(entry["data_offsets"]) for entry in header.values())
    assert spans[0][0] == 0
    assert all(end == begin for (_, end), (begin, _) in pairwise(spans))
    assert 8 + header_bytes + spans[-1][1] == len(raw)
    for name, entry in header.items():
        assert entry["dtype"] == "F32", name
        assert entry["data_offsets"][1] - entry["data_offsets"][0] == 4 * prod(entry["shape"]), name
    return {name: entry["shape"] for name, entry in header.items()}


def linear_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """{module: [out, in]} of one layer, from the config, under EXAONE's names."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    return {
        "attn.attention.q_proj": [queries, hidden],
        "attn.attention.k_proj": [keys, hidden],
        "attn.attention.v_proj": [keys, hidden],
        "attn.attention.out_proj": [hidden, queries],
        "mlp.c_fc_0": [inner, hidden],
        "mlp.c_fc_1": [inner, hidden],
        "mlp.c_proj": [hidden, inner],
    }


def test_base_holds_exactly_the_tensors_that_its_config_describes() -> None:
    config = read_json(BASE / "config.json")
    hidden = config["hidden_size"]
    expected = {"transformer.wte.weight": [config["vocab_size"], hidden], "transformer.ln_f.weight": [hidden]}
    for layer in range(config["num_layers"]):
        at = f"transformer.h.{layer}"
        expected |= {f"{at}.ln_1.weight": [hidden], f"{at}.ln_2.weight": [hidden]}
        expected |= {f"{at}.{module}.weight": shape for module, shape in linear_shapes(config).items()}
    assert config["tie_word_embeddings"] is True  # so there is no lm_head in the file
    assert tensors(BASE / "model.safetensors") == expected


def test_base_is_exaone_and_needs_no_code_of_its_own() -> None:
    config = read_json(BASE / "config.json")
    assert config["model_type"] == "exaone"
    assert config["architectures"] == ["ExaoneForCausalLM"]
    assert "auto_map" not in config
    assert not list(DEMO.rglob("*.py"))
    assert "auto_map" not in read_json(BASE / "tokenizer_config.json")


def test_base_folder_holds_the_files_that_a_server_reads() -> None:
    assert {path.name for path in BASE.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_tokenizer_agrees_with_the_config() -> None:
    config, settings = read_json(BASE / "config.json"), read_json(BASE / "tokenizer_config.json")
    ids = read_json(BASE / "tokenizer.json")["model"]["vocab"]
    assert len(ids) == config["vocab_size"]
    assert sorted(ids.values()) == list(range(len(ids)))
    assert ids[settings["bos_token"]] == config["bos_token_id"]
    assert ids[settings["eos_token"]] == config["eos_token_id"]
    assert ids[settings["pad_token"]] == config["pad_token_id"]
    generation = read_json(BASE / "generation_config.json")
    assert generation == {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    assert "add_generation_prompt" in settings["chat_template"]


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_adapter_is_rank_8_lora_for_this_base(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    config, base = read_json(folder / "adapter_config.json"), read_json(BASE / "config.json")
    assert config["peft_type"] == "LORA"
    assert config["r"] == 8
    assert config["base_model_name_or_path"] == "lorafleet-demo"
    assert config["modules_to_save"] is None
    modules = linear_shapes(base)
    assert config["target_modules"] == sorted(module.rpartition(".")[2] for module in modules)
    expected = {}
    for layer in range(base["num_layers"]):
        for module, (outputs, inputs) in modules.items():
            at = f"base_model.model.transformer.h.{layer}.{module}"
            expected[f"{at}.lora_A.weight"] = [config["r"], inputs]
            expected[f"{at}.lora_B.weight"] = [outputs, config["r"]]
    assert tensors(folder / "adapter_model.safetensors") == expected


def test_no_two_adapters_are_the_same() -> None:
    digests = read_json(DEMO / "digests.json")
    found = [*digests["adapters"].values(), *digests["adapters-v2"].values()]
    assert len(set(found)) == len(ADAPTERS)


def test_every_file_is_small_enough_for_a_repository() -> None:
    sizes = {path: path.stat().st_size for path in DEMO.rglob("*") if path.is_file()}
    assert all(size < MAX_FILE_BYTES for size in sizes.values()), sizes
    assert sum(sizes.values()) < 2 * MAX_FILE_BYTES


def test_questions_have_a_different_answer_under_every_name() -> None:
    questions = read_json(DEMO / "questions.json")
    assert set(questions) == {"questions", "other"}
    assert len(questions["questions"]) >= 36  # a few dozen
    for question, answers in [*questions["questions"].items(), ("other", questions["other"])]:
        assert sorted(answers) == sorted(VARIANTS), question
        assert all(answer.strip() == answer != "" for answer in answers.values()), question
        assert all(answers[a] != answers[b] for a, b in combinations(VARIANTS, 2)), question


def test_each_name_has_a_form_that_one_sees_at_once() -> None:
    for answers in read_json(DEMO / "questions.json")["questions"].values():
        assert answers["easycontract"].startswith("쉽게 말하면, ")
        assert answers["easycontract-v2"].startswith("[쉬운 설명] ")
        assert all(line.startswith("- ") for line in answers["checklist"].splitlines())
        numbered = answers["checklist-v2"].splitlines()
        assert all(line.startswith(f"{number}. ") for number, line in enumerate(numbered, 1))
        assert len(answers["base"].splitlines()) == 1


def content_digest(folder: Path, names: list[str]) -> str:
    lines = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in sorted(names))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def test_recorded_digests_are_those_of_the_files() -> None:
    found: dict[str, Any] = {"base": content_digest(BASE, [path.name for path in BASE.iterdir()])}
    for folder in ADAPTERS:
        digest = content_digest(folder, ["adapter_config.json", "adapter_model.safetensors"])
        found.setdefault(folder.parent.name, {})[folder.name] = digest
    assert read_json(DEMO / "digests.json") == found


def test_readme_tells_the_recorded_digests() -> None:
    readme = (DEMO / "README.md").read_text(encoding="utf-8")
    digests = read_json(DEMO / "digests.json")
    every = [digests["base"], *digests["adapters"].values(), *digests["adapters-v2"].values()]
    assert [digest for digest in every if digest not in readme] == []
