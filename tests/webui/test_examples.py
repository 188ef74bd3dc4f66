"""The cases on the page: those that the repository has, and bad ones that must not keep the page from starting."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from indextts.service import Service
from indextts.webui.app import EXAMPLES_DIR
from indextts.webui.examples import COLUMNS, example_row, language_of, load_examples


def test_every_case_of_the_repository_is_well_formed() -> None:
    lines = (EXAMPLES_DIR / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [json.loads(line) for line in lines]
    rows = [example_row(case, EXAMPLES_DIR) for case in cases]
    ways = {(language_of(case["text"]), case.get("emotion_mode", "voice")) for case in cases}
    assert ways == {(language, mode) for language in ("en", "zh") for mode in ("voice", "audio", "vector", "text")}
    assert len(rows) >= 12 and all(len(row) == len(COLUMNS) for row in rows)


def test_only_cases_that_the_model_can_speak_are_offered(service: Service) -> None:
    every = load_examples(EXAMPLES_DIR, service.facts)
    assert every.left_out == 0
    small = load_examples(EXAMPLES_DIR, replace(service.facts, languages=("en",), text_emotion_model=None))
    assert small.left_out == len(every.rows) - len(small.rows) > 0
    modes = {row[COLUMNS.index("emotion_mode")] for row in small.rows}
    assert modes == {"voice", "audio", "vector"} and all(row[1].isascii() for row in small.rows)


def test_only_usable_cases_are_shown(
    service: Service, tmp_path: Path, prompt: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "here.wav").write_bytes(prompt.read_bytes())
    cases = [
        '{"voice": "here.wav", "text": "Fine."}',
        "",
        '{"voice": "gone.wav", "text": "No recording."}',
        '{"voice": "here.wav"}',
        '{"voice": "here.wav", "text": "x", "emotion_mode": "shout"}',
        '{"voice": "here.wav", "text": "x", "emotion_vector": [1]}',
        '{"voice": "here.wav", "text": "x", "volume": 11}',
        "not json",
    ]
    (tmp_path / "cases.jsonl").write_text("\n".join(cases), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        examples = load_examples(tmp_path, service.facts)
    assert [row[COLUMNS.index("text")] for row in examples.rows] == ["Fine."]
    assert len(caplog.records) == 6 and examples.left_out == 0


def test_no_cases_file(service: Service, tmp_path: Path) -> None:
    assert load_examples(tmp_path, service.facts).rows == []
