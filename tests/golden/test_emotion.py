"""Emotion handling against the golden cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from indextts.emotion import EMOTIONS, EmotionTables, QwenEmotion, normalize_emo_vec, parse_answer, scale_emo_vector


@pytest.fixture(scope="module")
def cases(golden: Any) -> dict[str, Any]:
    return golden.json("emotion_cases.json")


def test_normalize_emo_vec(cases: dict[str, Any]) -> None:
    for case in cases["normalize_emo_vec"]:
        assert normalize_emo_vec(case["vec"], case["apply_bias"]) == pytest.approx(case["out"], abs=1e-12)


def test_scale_emo_vector(cases: dict[str, Any]) -> None:
    for case in cases["scale_emo_vector"]:
        assert list(scale_emo_vector(case["vec"], case["emo_alpha"])) == case["out"], case


def test_answers_of_the_text_classifier(cases: dict[str, Any]) -> None:
    answered = [case for case in cases["qwen_convert"] if "out" in case]
    assert answered
    for case in answered:
        assert list(case["out"]) == list(EMOTIONS)
        assert parse_answer(case["model_text"], case["user_text"]) == tuple(case["out"].values()), case


def test_answers_the_released_code_crashes_on_are_read(cases: dict[str, Any]) -> None:
    for case in cases["qwen_convert"]:
        if "raises" in case:
            same_without_the_word = parse_answer(case["model_text"], "")
            assert parse_answer(case["model_text"], case["user_text"]) == same_without_the_word


def test_messages_to_the_text_classifier(cases: dict[str, Any]) -> None:
    asked: list[Any] = []

    class Tokenizer:
        def apply_chat_template(self, messages: Any, **options: Any) -> str:
            asked.append((messages, options))
            raise InterruptedError

    description = cases["qwen_messages"][-1]["content"]
    with pytest.raises(InterruptedError):
        QwenEmotion("unused")._answer(Tokenizer(), None, description)
    assert asked == [(cases["qwen_messages"], cases["qwen_template_kwargs"])]


def test_matrix(golden: Any) -> None:
    case = golden.component("emotion_matrix")
    tables = EmotionTables(case.input("emo_matrix"), case.input("spk_matrix"), case.config["emo_num"])
    style, weights = case.input("style"), case.input("weights").tolist()
    case.check("index", torch.tensor(tables.select(style)))
    case.check("emovec_mat", tables.weighted_sum(weights, style))
    case.check("emovec", tables.mix(weights, style, case.input("base_emovec")))
