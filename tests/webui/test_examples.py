"""The cases on the page: those that the repository has, and bad ones that must not keep the page from starting."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from indextts.webui.app import EXAMPLES_DIR
from indextts.webui.examples import COLUMNS, example_row, load_examples


def test_every_case_of_the_repository_is_well_formed() -> None:
    lines = (EXAMPLES_DIR / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [example_row(json.loads(line), EXAMPLES_DIR) for line in lines]
    assert {row[COLUMNS.index("emotion_mode")] for row in rows} == {"voice", "audio", "vector", "text"}
    assert all(len(row) == len(COLUMNS) for row in rows)


def test_only_usable_cases_are_shown(tmp_path: Path, prompt: Path, caplog: pytest.LogCaptureFixture) -> None:
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
        names, rows = load_examples(tmp_path)
    assert [row[names.index("text")] for row in rows] == ["Fine."]
    assert len(caplog.records) == 6


def test_no_cases_file(tmp_path: Path) -> None:
    assert load_examples(tmp_path)[1] == []
