"""The voice library: names, what is stored, and what is left when something goes wrong."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from indextts.errors import AudioError, VoiceError, VoiceExists, VoiceNotFound
from indextts.files import ABANDONED_AFTER_S
from indextts.resources import EXAMPLES_DIR
from indextts.voices import VoiceLibrary, default_folder
from tests.webui.humming_engine import RATE_HZ, hum


def recording(audio_format: str = "WAV", duration_s: float = 1.0, samples: np.ndarray | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, hum(duration_s) if samples is None else samples, RATE_HZ, format=audio_format)
    return file.getvalue()


@pytest.fixture
def library(tmp_path: Path) -> VoiceLibrary:
    """Empty, and without a folder yet; there is one example voice."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "Example.wav").write_bytes(recording())
    return VoiceLibrary(tmp_path / "voices", tmp_path / "examples")


def names(library: VoiceLibrary, search: str = "") -> list[str]:
    return [voice.name for voice in library.voices(search)]


@pytest.mark.parametrize(("audio_format", "suffix"), [("WAV", "wav"), ("FLAC", "flac"), ("OGG", "ogg"), ("MP3", "mp3")])
def test_a_recording_is_stored_as_it_is(library: VoiceLibrary, audio_format: str, suffix: str) -> None:
    data = recording(audio_format)
    saved = library.save("Anna", data)
    assert saved == library.get("Anna") and not saved.read_only
    assert saved.prompt().data == data
    assert [path.name for path in library.folder.iterdir()] == [f"Anna.{suffix}"]


def test_saving_renaming_searching_deleting(library: VoiceLibrary) -> None:
    for name in ("Zoë", "anna b.", "小明", "Bob v1.2"):
        if name != "anna b.":
            library.save(name, recording())
    assert names(library) == ["Bob v1.2", "Example", "Zoë", "小明"]
    assert names(library, "ZOË") == names(library, "zoe\u0308") == ["Zoë"]
    assert library.rename("Bob v1.2", "Bobby").name == "Bobby"
    assert library.rename("Bobby", "bobby").name == "bobby"
    assert names(library, "bob") == ["bobby"]
    library.delete("小明")
    assert names(VoiceLibrary(library.folder, library.examples_dir)) == ["bobby", "Example", "Zoë"]


def test_names_are_taken_once(library: VoiceLibrary) -> None:
    library.save("Anna", recording())
    library.save("Bob", recording("FLAC"))
    for taken in ("Anna", "ANNA", "Bob", "Example", "example"):
        with pytest.raises(VoiceExists, match=r"(?i)" + taken):
            library.save(taken, recording("OGG"))
    with pytest.raises(VoiceExists):
        library.rename("Anna", "bob")
    assert names(library) == ["Anna", "Bob", "Example"]


def test_examples_are_read_only(library: VoiceLibrary) -> None:
    assert library.get("Example").read_only
    with pytest.raises(VoiceError, match="is an example"):
        library.delete("Example")
    with pytest.raises(VoiceError, match="is an example"):
        library.rename("Example", "mine")
    assert library.examples_dir and (library.examples_dir / "Example.wav").is_file()


def test_the_examples_of_the_repository_are_voices(tmp_path: Path) -> None:
    examples = names(VoiceLibrary(tmp_path))
    assert examples == sorted(path.stem for path in EXAMPLES_DIR.glob("voice_*")) and "voice_01" in examples


def test_what_is_not_there(library: VoiceLibrary) -> None:
    for name in ("nobody", "", "..", "../examples/Example", "voices/Anna", "Example.wav", "\0"):
        with pytest.raises(VoiceNotFound):
            library.get(name)
        with pytest.raises(VoiceNotFound):
            library.delete(name)
        with pytest.raises(VoiceNotFound):
            library.rename(name, "new")


@pytest.mark.parametrize(
    "name",
    [
        "", " ", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", "C:x", "a\0b", "a\nb", ".hidden", "dot.", "con",
        "NUL.x", "a*", "a?", "\ud800", "\u202egnp", "x" * 65, "😀" * 60,
    ],
)  # fmt: skip
def test_names_that_cannot_be_used(library: VoiceLibrary, tmp_path: Path, name: str) -> None:
    library.save("Anna", recording())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(VoiceError, match="name"):
        library.save(name, recording())
    with pytest.raises(VoiceError, match="name"):
        library.rename("Anna", name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"no sound", "cannot decode"),
        (recording(duration_s=0.2), "too short"),
        (recording(samples=np.zeros(RATE_HZ)), "silent"),
        (recording("AIFF"), "AIFF"),
        (recording(duration_s=121), "too long"),
    ],
)
def test_recordings_that_cannot_be_used(library: VoiceLibrary, data: bytes, says: str) -> None:
    with pytest.raises(AudioError, match=says) as caught:
        library.save("Anna", data)
    assert "Anna" in str(caught.value) and names(library) == ["Example"]


def test_other_files_are_no_voices(library: VoiceLibrary) -> None:
    library.save("Anna", recording())
    for name in (".hidden.wav", "notes.txt", "Anna.wav.bak"):
        (library.folder / name).write_bytes(b"x")
    (library.folder / "folder.wav").mkdir()
    assert names(library) == ["Anna", "Example"]


def test_a_full_disk_leaves_nothing(library: VoiceLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    library.save("Anna", recording())

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(VoiceError, match="No space left"):
        patch.setattr("indextts.files.os.fsync", full)
        library.save("Bob", recording())
    assert [path.name for path in library.folder.iterdir()] == ["Anna.wav"]


def test_killed_in_the_middle_of_saving(library: VoiceLibrary, tmp_path: Path) -> None:
    """A process that dies with half of a file written leaves a library that is as before, and can save again."""
    library.save("Anna", recording())
    (tmp_path / "bob.wav").write_bytes(recording())
    program = (
        "import os, sys, signal, pathlib, indextts.voices as v\n"
        "os.fsync = lambda descriptor: (os.ftruncate(descriptor, 1000), os.kill(os.getpid(), signal.SIGKILL))\n"
        "folder, recording = map(pathlib.Path, sys.argv[1:])\n"
        "v.VoiceLibrary(folder, None).save('Bob', recording.read_bytes())\n"
    )
    words = [sys.executable, "-c", program, str(library.folder), str(tmp_path / "bob.wav")]
    killed = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (partial,) = [path for path in library.folder.iterdir() if path.name != "Anna.wav"]
    assert partial.stat().st_size == 1000
    assert names(library) == ["Anna", "Example"]
    library.save("Bob", recording())
    VoiceLibrary(library.folder)
    assert partial.is_file()  # it might still be written by another program
    long_ago = time.time() - ABANDONED_AFTER_S - 1
    os.utime(partial, (long_ago, long_ago))
    VoiceLibrary(library.folder)
    assert not partial.exists() and names(library) == ["Anna", "Bob", "Example"]


def test_what_is_kept_of_a_voice_goes_where_it_goes(library: VoiceLibrary) -> None:
    def hidden() -> list[str]:
        return sorted(path.name for path in library.folder.iterdir() if path.name.startswith("."))

    def keep(name: str) -> Path:
        path = library.get(name).prompt().conditioning_path
        assert path is not None
        path.write_bytes(b"what a model knows of it")
        return path

    for name in ("Anna", "Bob v1.2"):
        library.save(name, recording())
        keep(name)
    assert hidden() == [".Anna.safetensors", ".Bob v1.2.safetensors"]
    assert names(library) == ["Anna", "Bob v1.2", "Example"]
    library.rename("Bob v1.2", "Bob")
    assert hidden() == [".Anna.safetensors", ".Bob.safetensors"]
    library.delete("Bob")
    assert hidden() == [".Anna.safetensors"]
    assert library.get("Example").prompt().conditioning_path is None
    library.save("Carla", recording("FLAC"))
    orphan = keep("Carla")
    (library.folder / "Carla.flac").unlink()  # by hand
    VoiceLibrary(library.folder)
    assert orphan.exists()  # the recording may be about to come back
    long_ago = time.time() - ABANDONED_AFTER_S - 1
    for path in (orphan, keep("Anna")):
        os.utime(path, (long_ago, long_ago))
    VoiceLibrary(library.folder)
    assert hidden() == [".Anna.safetensors"]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    library = VoiceLibrary(tmp_path / "file", None)
    with pytest.raises(VoiceError, match="file"):
        library.voices()
    with pytest.raises(VoiceError, match="file"):
        library.save("Anna", recording())


def test_a_recording_that_vanishes(library: VoiceLibrary) -> None:
    voice = library.save("Anna", recording())
    voice.path.unlink()
    with pytest.raises(AudioError, match=r"Anna\.wav"):
        voice.prompt()


def test_the_default_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("indextts.voices.platformdirs.user_data_path", lambda name: tmp_path / name)
    assert default_folder() == tmp_path / "indextts" / "voices"
    assert not default_folder().exists()  # until something is saved
