"""Emotions: random rows, errors, and the text classifier with a tiny network that always says the same."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from indextts.emotion import (
    CHINESE_NAMES,
    EMOTIONS,
    EmotionTables,
    QwenEmotion,
    normalize_emo_vec,
    parse_answer,
    scale_emo_vector,
)
from indextts.errors import EmotionError

CALM = (0, 0, 0, 0, 0, 0, 0, 1)


def test_random_rows_come_from_the_given_source_in_order() -> None:
    rows = (3, 17, 2, 8, 4, 5, 10, 24)
    emotions = torch.arange(sum(rows), dtype=torch.float32)[:, None]
    tables = EmotionTables(emotions, torch.ones(sum(rows), 2), rows)
    source = random.Random(7)
    want = [source.randint(0, n - 1) for n in rows]
    assert tables.select(torch.ones(1, 2), random.Random(7)) == want
    weights = [0.0] * 8
    weights[2] = 1.0
    assert tables.weighted_sum(weights, torch.ones(1, 2), random.Random(7)).item() == sum(rows[:2]) + want[2]


def test_weights_above_one_subtract_the_own_emotion() -> None:
    tables = EmotionTables(torch.zeros(8, 3), torch.ones(8, 2), (1,) * 8)
    own = torch.tensor([[1.0, 2.0, 3.0]])
    torch.testing.assert_close(tables.mix([1.5] + [0.0] * 7, torch.ones(1, 2), own), -0.5 * own)


def test_matrices_of_other_sizes_are_refused() -> None:
    with pytest.raises(EmotionError, match="rows"):
        EmotionTables(torch.zeros(9, 3), torch.zeros(8, 2), (1,) * 8)
    with pytest.raises(EmotionError, match="rows"):
        EmotionTables(torch.zeros(8, 3), torch.zeros(8, 2), (2,) * 4)


@pytest.mark.parametrize("values", [[], [0.1] * 7, [0.1] * 9])
def test_vectors_of_other_lengths_are_refused(values: list[float]) -> None:
    for use in (normalize_emo_vec, lambda v: scale_emo_vector(v, 0.5)):
        with pytest.raises(EmotionError, match="8 values"):
            use(values)


@pytest.mark.parametrize(
    "answer, description, want",
    [
        ("[1, 2]", "gloomy", CALM),
        ("null", "", CALM),
        ("3", "", CALM),
        ("", "", CALM),
        ('"Sad "', "gloomy", (0, 0, 1, 0, 0, 0, 0, 0)),
        ('{"高兴": "0.5", "愤怒": 2}', "", (0.5, 1.2, 0, 0, 0, 0, 0, 0)),
        ('the answer is "惊讶": .5 and "高兴" : 0.25.', "", (0.25, 0, 0, 0, 0, 0, 0.5, 0)),
        ('{"高兴": 1e999}', "", (1.2, 0, 0, 0, 0, 0, 0, 0)),
    ],
)
def test_odd_answers(answer: str, description: str, want: tuple[float, ...]) -> None:
    assert parse_answer(answer, description) == want


NUMBERLESS = ['{"高兴": "much"}', '{"高兴": null}', '{"高兴": [1]}', '{"高兴": NaN}', "高兴: 1.2.3"]


@pytest.mark.parametrize("answer", NUMBERLESS)
def test_answers_without_a_number_are_errors(answer: str) -> None:
    with pytest.raises(EmotionError, match="高兴"):
        parse_answer(answer, "")


def write_parrot(directory: Path, answer: list[str]) -> None:
    """A Qwen3 that answers ``answer`` whatever it is asked: attention adds nothing, each token calls the next."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    words = ["<unk>", "<eos>", "<go>", *answer]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>")
    fast.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}<go>"
    fast.save_pretrained(directory)

    size = 32
    assert len(words) <= size
    config = Qwen3Config(
        vocab_size=len(words), hidden_size=size, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, tie_word_embeddings=False, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    following = {2: 3, **{i: i + 1 for i in range(3, len(words) - 1)}, len(words) - 1: 1, 0: 0, 1: 1}
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size)[: len(words)])
        model.lm_head.weight.zero_()
        for token, successor in following.items():
            model.lm_head.weight[successor, token] = 1.0
    model.save_pretrained(directory)


def test_text_classifier_end_to_end(tmp_path: Path) -> None:
    write_parrot(tmp_path, ['{"高兴":', "0.8,", '"悲伤":', "0.3}"])
    classifier = QwenEmotion(tmp_path)
    assert classifier.available
    assert classifier("what a day") == (0.8, 0, 0.3, 0, 0, 0, 0, 0)
    assert classifier("what a gloomy day") == (0.8, 0, 0, 0, 0, 0.3, 0, 0)


def test_what_comes_before_the_end_of_thinking_is_dropped(tmp_path: Path) -> None:
    write_parrot(tmp_path, ['"高兴":1', "</think>", '{"愤怒":', "1}"])
    classifier = QwenEmotion(tmp_path)
    classifier.END_OF_THINKING_ID = 4
    assert classifier("") == (0, 1, 0, 0, 0, 0, 0, 0)


def test_missing_and_damaged_models_are_named(tmp_path: Path) -> None:
    missing = QwenEmotion(tmp_path / "qwen")
    assert not missing.available
    with pytest.raises(EmotionError, match="download"):
        missing("text")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EmotionError, match="cannot load"):
        QwenEmotion(tmp_path)("text")


def test_names_match() -> None:
    assert len(EMOTIONS) == len(CHINESE_NAMES) == len(set(EMOTIONS)) == 8
