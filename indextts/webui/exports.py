"""What can be taken away of a narration: the joined sound, each row alone, and subtitles."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from indextts.encoding import write_pieces
from indextts.subtitles import write_lrc, write_srt
from indextts.webui.downloads import check_format
from indextts.webui.i18n import PageError
from indextts.webui.narration import Narration, Row

_NOT_IN_A_NAME = re.compile(r"[^\w-]+")


def write_exports(narration: Narration, folder: Path, audio_format: str) -> list[Path]:
    """All files of a narration: sound, ZIP of the rows, SRT and LRC, in ``folder``. One that exists is replaced.

    Raises:
        ConfigError: another format than those of ``downloads``.
        PageError: nothing is spoken yet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    joined = write_joined(narration, folder / f"joined.{audio_format}")
    rows = write_zip(narration, folder / "segments.zip", audio_format)
    cues = narration.cues()
    texts = []
    for name, content in (("joined.srt", write_srt(cues)), ("joined.lrc", write_lrc(cues))):
        texts.append(folder / name)
        texts[-1].write_text(content, encoding="utf-8")
    return [joined, rows, *texts]


def write_joined(narration: Narration, path: Path) -> Path:
    """The sound of all rows with their pauses. Raises as ``write_exports``."""
    check_format(path.suffix.removeprefix("."))
    if not narration.spoken:
        raise PageError("error.nothing_spoken")
    write_pieces(path, narration.blocks(), narration.sample_rate_hz)
    return path


def write_zip(narration: Narration, path: Path, audio_format: str) -> Path:
    """A file of each row, named by its number and its speaker. Raises as ``write_exports``."""
    check_format(audio_format)
    if not narration.spoken:
        raise PageError("error.nothing_spoken")
    digits = max(3, len(str(len(narration.rows))))
    part = path.with_name(f"part.{audio_format}")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for index, row, take in narration.spoken:
            name = f"{index + 1:0{digits}d}{_suffix(row)}.{audio_format}"
            if audio_format == "wav":
                file.write(take.path, name)
            else:
                write_pieces(part, take.blocks(), take.sample_rate_hz)
                file.write(part, name)
    part.unlink(missing_ok=True)
    return path


def _suffix(row: Row) -> str:
    name = _NOT_IN_A_NAME.sub("_", row.speaker).strip("_")
    return f"-{name}" if name else ""
