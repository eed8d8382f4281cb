"""The part of the demo's training that needs no torch: the sentences, their variations, the tensor names."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tools.demo import names
from tools.demo.data import TOPICS_FILE, VARIANTS, load_topics
from tools.demo.prompts import off_topic, prompt, style_tag

ROOT = Path(__file__).parents[2]


def test_committed_questions_are_those_of_the_topics() -> None:
    topics = load_topics()
    committed = json.loads((ROOT / "demo" / "questions.json").read_text(encoding="utf-8"))
    assert committed == {"questions": topics.questions, "other": topics.other}


def test_a_question_that_stands_twice_is_refused(tmp_path: Path) -> None:
    raw = json.loads(TOPICS_FILE.read_text(encoding="utf-8"))
    raw["topics"][1]["otherWording"] = raw["topics"][0]["question"]
    broken = tmp_path / "topics.json"
    broken.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(ValueError, match="stands twice"):
        load_topics(broken)


def test_prompts_repeat_with_the_seed_and_vary_with_it() -> None:
    def some(seed: int) -> list[object]:
        rng = random.Random(seed)
        return [prompt("월세는 언제 내나요?", rng) for _ in range(50)] + [off_topic(["hi"], rng) for _ in range(10)]

    assert some(1) == some(1)
    assert some(1) != some(2)
    assert len({json.dumps(message) for message in some(1)}) > 30


def test_prompts_keep_the_words_of_the_question() -> None:
    rng = random.Random(7)
    for _ in range(200):
        messages = prompt("월세는 언제 내나요?", rng)
        assert [message["role"] for message in messages] in (["user"], ["system", "user"])
        assert "월세는언제내나요" in "".join(messages[-1]["content"].split())
        assert all(style_tag(variant) not in messages[0]["content"] for variant in VARIANTS)


def test_names_are_exaones_and_go_there_and_back() -> None:
    pairs = {
        "model.embed_tokens.weight": "transformer.wte.weight",
        "model.norm.weight": "transformer.ln_f.weight",
        "model.layers.2.input_layernorm.weight": "transformer.h.2.ln_1.weight",
        "model.layers.2.post_attention_layernorm.weight": "transformer.h.2.ln_2.weight",
        "model.layers.0.self_attn.q_proj.weight": "transformer.h.0.attn.attention.q_proj.weight",
        "model.layers.0.self_attn.o_proj.weight": "transformer.h.0.attn.attention.out_proj.weight",
        "model.layers.0.mlp.gate_proj.weight": "transformer.h.0.mlp.c_fc_0.weight",
        "model.layers.0.mlp.up_proj.weight": "transformer.h.0.mlp.c_fc_1.weight",
        "model.layers.0.mlp.down_proj.weight": "transformer.h.0.mlp.c_proj.weight",
    }
    assert {name: names.to_exaone(name) for name in pairs} == pairs
    assert {names.to_llama(exaone): exaone for exaone in pairs.values()} == pairs


def test_adapter_tensor_names_go_there_and_back() -> None:
    tensor = names.adapter_tensor("model.layers.1.self_attn.o_proj", "lora_B")
    assert tensor == "base_model.model.transformer.h.1.attn.attention.out_proj.lora_B.weight"
    assert names.adapted_module(tensor) == ("model.layers.1.self_attn.o_proj", "lora_B")


def test_training_without_torch_says_what_to_do(tmp_path: Path) -> None:
    # -S hides site-packages, so torch is missing wherever this test runs
    command = [sys.executable, "-S", "-m", "tools.demo.train", "--out", str(tmp_path / "demo")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: training the demo needs torch and transformers")
    assert "Next: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
