"""The demo's tokenizer: a byte-level BPE learnt from the demo's own sentences, and EXAONE's chat form."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # type: ignore[import-not-found]
from transformers import PreTrainedTokenizerFast  # type: ignore[import-not-found]

VOCABULARY_SIZE = 1536
MAX_POSITIONS = 4096

PAD, BOS, UNK, END_OF_TURN = "[PAD]", "[BOS]", "[UNK]", "[|endofturn|]"
SPECIAL_TOKENS = [PAD, BOS, "[EOS]", UNK, "[|system|]", "[|user|]", "[|assistant|]", END_OF_TURN]

# A turn is `[|role|]text`, ended by a line break for the user and by [|endofturn|] for the others; a chat
# without a system prompt opens with an empty one.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}{{ '[|system|][|endofturn|]\\n' }}{% endif %}"
    "{{ '[|' + message['role'] + '|]' + message['content'] }}"
    "{% if message['role'] == 'user' %}{{ '\\n' }}{% else %}{{ '[|endofturn|]\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}"
)


def write_tokenizer(texts: list[str], folder: Path) -> None:
    """Learns the merges from `texts` and writes `tokenizer.json` and `tokenizer_config.json`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END_OF_TURN,
        "pad_token": PAD,
        "unk_token": UNK,
        "model_max_length": MAX_POSITIONS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, ensure_ascii=False, indent=1) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


class Chat:
    """Text to token ids and back, as a server does it from the files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(str(folder))
        self.vocabulary_size: int = len(self._tokenizer)
        self.pad_id, self.bos_id, self.end_id = (
            int(self._tokenizer.convert_tokens_to_ids(token)) for token in (PAD, BOS, END_OF_TURN)
        )

    def prompt_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """The ids that a server feeds to the model before the answer."""
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self._encode(text)

    def answer_ids(self, answer: str) -> list[int]:
        """The ids of an answer, with the end of the turn."""
        return self._encode(answer + END_OF_TURN)

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
