"""``indextts serve``: flags that contradict each other."""

from __future__ import annotations

import pytest

from indextts.cli import main


@pytest.mark.parametrize("words", [["--auth", "ann:one"], ["--root-path", "/tts"], ["--admin"]])
def test_flags_of_the_page_need_the_page(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", *words])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "add --page" in said and said.count("\n") == 1


def test_a_wrong_variable_is_told_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INDEXTTS_AUTH", "ann")
    with pytest.raises(SystemExit):
        main(["serve", "--page"])
    assert "INDEXTTS_AUTH must be user:password" in capsys.readouterr().err
