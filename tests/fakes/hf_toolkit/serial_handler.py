"""A handler of the usual kind, as in public examples: switch the adapter, generate, one request after the other.

The benchmark's counterpart of handlers/vertex (tools/bench_handler.py). Beside it in the folder lie places.json,
with the folders of the base and of each adapter, and what bundle.py writes, so that both read the model the same way.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))


class EndpointHandler:
    def __init__(self, model_dir: str = "", **_: Any) -> None:
        from handlers.vertex.mixed_model import Adapter, MixedModel, Tokens

        places = json.loads((Path(model_dir) / "places.json").read_text())
        self.tokenizer = Tokens(Path(places["base"])).tokenizer
        self.mixed = MixedModel(Path(places["base"]), "cpu", "float32")
        for name, folder in places["adapters"].items():
            self.mixed.load(name, Adapter(name, Path(folder)))

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": [self.one(instance) for instance in data["instances"]]}

    def one(self, instance: dict[str, Any]) -> dict[str, Any]:
        import torch  # type: ignore[import-not-found]

        text = self.tokenizer.apply_chat_template(instance["messages"], tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        options: dict[str, Any] = {
            "max_new_tokens": int(instance["max_tokens"]), "do_sample": False,
            "eos_token_id": self.tokenizer.eos_token_id, "pad_token_id": self.tokenizer.pad_token_id,
            "attention_mask": torch.ones_like(ids),
        }  # fmt: skip
        slot = self.mixed.slots.get(instance["model"])
        with torch.inference_mode():
            if slot is None:
                with self.mixed.peft.disable_adapter():
                    made = self.mixed.peft.generate(input_ids=ids, **options)
            else:
                self.mixed.peft.set_adapter(slot)
                made = self.mixed.peft.generate(input_ids=ids, **options)
        content = self.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
        return {"choices": [{"message": {"role": "assistant", "content": content}}]}
