"""The voice library: recordings under names, one file each, in a folder that people may look into.

A file appears under its name only once it is complete, so that a program that is killed while it saves leaves no
broken voice behind. The example voices of the repository are there as well, read-only.
"""

from __future__ import annotations

import io
import threading
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from indextts.errors import AudioError, VoiceError, VoiceExists, VoiceNotFound
from indextts.files import MAX_NAME_LENGTH, checked_name, remove_abandoned, write_at_once
from indextts.resources import EXAMPLES_DIR
from indextts.types import VoicePrompt

SUFFIX = {"WAV": ".wav", "WAVEX": ".wav", "FLAC": ".flac", "OGG": ".ogg", "MP3": ".mp3"}
"""What recordings are stored, by the name that libsndfile has for their format, and the suffix of their file."""

MAX_RECORDING_S = 120.0
CONDITIONING = ".safetensors"


@dataclass(frozen=True)
class LibraryVoice:
    """A voice that can be asked for by its name."""

    name: str
    path: Path
    read_only: bool

    @property
    def conditioning_path(self) -> Path | None:
        """Where what a model hears in it is kept, hidden beside the recording; not of examples."""
        return None if self.read_only else self.path.with_name(f".{self.name}{CONDITIONING}")

    def prompt(self) -> VoicePrompt:
        """The recording. Raises ``AudioError`` if the file is gone or cannot be read."""
        return VoicePrompt.from_path(self.path, self.conditioning_path)


def default_folder() -> Path:
    """Where the user's voices are, if not told otherwise."""
    return platformdirs.user_data_path("indextts") / "voices"


class VoiceLibrary:
    """The voices of ``folder``, and those of ``examples_dir`` read-only. Safe to share between threads."""

    def __init__(self, folder: Path, examples_dir: Path | None = EXAMPLES_DIR) -> None:
        self.folder = folder
        self.examples_dir = examples_dir
        self._lock = threading.Lock()
        self._remove_abandoned()

    def voices(self, search: str = "") -> list[LibraryVoice]:
        """All voices whose name holds ``search``, by name; upper and lower case are the same."""
        examples = [] if self.examples_dir is None else voices_in(self.examples_dir, read_only=True)
        own = voices_in(self.folder, read_only=False)
        by_name = {voice.name: voice for voice in (*own, *examples)}
        wanted = unicodedata.normalize("NFC", search).casefold()
        return [by_name[name] for name in sorted(by_name, key=str.casefold) if wanted in name.casefold()]

    def get(self, name: str) -> LibraryVoice:
        """The voice called ``name``.

        Raises:
            VoiceNotFound: there is none.
        """
        wanted = unicodedata.normalize("NFC", name)
        for voice in self.voices():
            if voice.name == wanted:
                return voice
        raise VoiceNotFound(f"there is no voice {name[:MAX_NAME_LENGTH]!r}")

    def holding(self, data: bytes) -> LibraryVoice | None:
        """The voice whose recording is ``data``, if there is one."""
        for voice in self.voices():
            with suppress(OSError):  # removed by somebody else at this moment
                if voice.path.stat().st_size == len(data) and voice.path.read_bytes() == data:
                    return voice
        return None

    def save(self, name: str, data: bytes) -> LibraryVoice:
        """Store a recording, of any format the audio library decodes, as the voice ``name``.

        Raises:
            AudioError: the recording cannot be used as a prompt, or is too long.
            VoiceExists: the name is taken.
            VoiceError: the name cannot be used, or the file cannot be written; nothing is left behind.
        """
        name = checked_name(name, "voice", VoiceError)
        path = self.folder / f"{name}{checked_recording(data, name)}"
        with self._lock:
            self._must_be_free(name)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_at_once(path, data)
            except OSError as error:
                raise VoiceError(f"cannot save the voice {name!r} in {str(self.folder)!r}: {error.strerror}") from error
        return LibraryVoice(name, path, read_only=False)

    def rename(self, name: str, new_name: str) -> LibraryVoice:
        """Call the voice ``name`` ``new_name`` from now on. Raises as ``save`` and ``get`` do."""
        new_name = checked_name(new_name, "voice", VoiceError)
        with self._lock:
            voice = self._own(name)
            if new_name.casefold() != voice.name.casefold():
                self._must_be_free(new_name)
            renamed = LibraryVoice(new_name, voice.path.with_name(f"{new_name}{voice.path.suffix}"), read_only=False)
            try:
                voice.path.rename(renamed.path)
            except OSError as error:
                raise VoiceError(f"cannot rename the voice {voice.name!r}: {error.strerror}") from error
            if (kept := voice.conditioning_path) is not None and renamed.conditioning_path is not None:
                with suppress(OSError):  # then it is computed anew
                    kept.rename(renamed.conditioning_path)
        return renamed

    def delete(self, name: str) -> None:
        """Remove the voice ``name`` and its recording for good.

        Raises:
            VoiceNotFound: there is none.
            VoiceError: it is an example voice, or the file cannot be removed.
        """
        with self._lock:
            voice = self._own(name)
            try:
                voice.path.unlink()
                if voice.conditioning_path is not None:
                    voice.conditioning_path.unlink(missing_ok=True)
            except OSError as error:
                raise VoiceError(f"cannot delete the voice {voice.name!r}: {error.strerror}") from error

    def _own(self, name: str) -> LibraryVoice:
        voice = self.get(name)
        if voice.read_only:
            raise VoiceError(f"the voice {voice.name!r} is an example and cannot be changed")
        return voice

    def _must_be_free(self, name: str) -> None:
        # Names that differ in case only would be one file on some systems.
        for voice in self.voices():
            if voice.name.casefold() == name.casefold():
                raise VoiceExists(f"there is a voice {voice.name!r} already: choose another name, or delete it first")

    def _remove_abandoned(self) -> None:
        """Remove unfinished files, and what was kept of voices whose recording somebody has removed by hand."""
        left = set(self.folder.glob(f".*{CONDITIONING}"))
        if left:
            left -= {voice.conditioning_path for voice in voices_in(self.folder, read_only=False)}
        remove_abandoned(self.folder, left)


def voices_in(folder: Path, read_only: bool) -> list[LibraryVoice]:
    """The recordings in ``folder``, which may be absent. Raises ``VoiceError`` if it cannot be read."""
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise VoiceError(f"cannot read the voices in {str(folder)!r}: {error.strerror}") from error
    return [
        LibraryVoice(unicodedata.normalize("NFC", path.stem), path, read_only)
        for path in paths
        if path.suffix.lower() in SUFFIX.values() and not path.name.startswith(".") and path.is_file()
    ]


def checked_recording(data: bytes, name: str) -> str:
    """Check that ``data`` is a usable prompt. Returns the suffix of its format."""
    import soundfile

    from indextts.audio import MAX_PROMPT_S, load_prompt  # needs torch, which listing need not wait for

    load_prompt(data, 16000, name)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        suffix, duration_s = SUFFIX.get(file.format), file.frames / file.samplerate
    if suffix is None:
        raise AudioError(f"the recording {name!r} is {file.format}: use a WAV, FLAC, OGG or MP3 file")
    if duration_s > MAX_RECORDING_S:
        raise AudioError(
            f"the recording {name!r} is too long: {duration_s:.0f} s; at most {MAX_RECORDING_S:.0f} s are taken, "
            f"and the first {MAX_PROMPT_S:.0f} s are used"
        )
    return suffix
