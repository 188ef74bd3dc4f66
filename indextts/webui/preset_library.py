"""Settings of the page under names: one JSON file each, in a folder that people may look into. Knows no gradio.

Presets belong to all users of a server, like the voices of its library. A preset is how to speak: all settings, the
glossary, and the names of the voices, but neither the recordings nor the text.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from indextts.errors import IndexTTSError, PresetError
from indextts.files import MAX_NAME_LENGTH, checked_name, remove_abandoned, write_at_once
from indextts.webui.form import FormValues
from indextts.webui.glossary import Terms, glossary_of
from indextts.webui.i18n import PageError

logger = logging.getLogger(__name__)

SUFFIX = ".json"
VERSION = 1
MAX_PRESETS = 1000
MAX_FILE_BYTES = 2**20
MAX_TEXT_LENGTH = 2000

VOICES = ("voice", "emotion_audio")
"""Fields of the form that are recordings: a preset has their names in the voice library."""

KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "float": (int, float)}
SETTINGS = {
    name: KINDS[str(form_field.type).split(" | ")[0]]
    for name, form_field in FormValues.__dataclass_fields__.items()
    if name not in (*VOICES, "text", "glossary")
}
"""The settings of a preset, and what their values may be."""


@dataclass(frozen=True)
class Preset:
    """What a preset holds.

    Attributes:
        settings: Values of the form by their name in ``FormValues``, see ``SETTINGS``.
        voices: Names in the voice library by the field that they are for, see ``VOICES``.
        glossary: Readings by term.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    voices: dict[str, str] = field(default_factory=dict)
    glossary: Terms = field(default_factory=dict)

    @classmethod
    def checked(cls, content: Mapping[str, Any]) -> Preset:
        """A preset from plain data.

        Raises:
            PresetError: something in it is of another kind than it should be, or not known.
        """
        if not isinstance(content, Mapping) or set(content) - {"version", *cls.__dataclass_fields__}:
            raise PresetError(f"a preset holds settings, voices and glossary, not {shown(content)}")
        if content.get("version", VERSION) != VERSION:
            raise PresetError(f"a preset of version {VERSION} was expected, not {shown(content['version'])}")
        parts = {name: content.get(name, {}) for name in cls.__dataclass_fields__}
        if not all(isinstance(part, Mapping) for part in parts.values()):
            raise PresetError("settings, voices and glossary of a preset are mappings by name")
        for name, value in parts["settings"].items():
            if name not in SETTINGS:
                raise PresetError(f"a preset has no setting {shown(name)}")
            check_setting(name, value)
        for name, voice in parts["voices"].items():
            if name not in VOICES or not isinstance(voice, str):
                raise PresetError(f"a preset has the names of {' and '.join(VOICES)}, not {shown({name: voice})}")
        try:
            glossary_of(parts["glossary"])
        except IndexTTSError as error:
            raise PresetError(str(error)) from error
        return cls(**{name: dict(part) for name, part in parts.items()})

    def as_json(self) -> bytes:
        """The content of a preset's file."""
        return json.dumps({"version": VERSION, **asdict(self)}, ensure_ascii=False, indent=2).encode()


def check_setting(name: str, value: object) -> None:
    """Raise ``PresetError`` if the setting cannot have the value, whatever the model."""
    kinds = SETTINGS[name]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise PresetError(f"the setting {name} cannot be {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise PresetError(f"the setting {name} must be a finite number, not {value}")
    if isinstance(value, str) and len(value) > MAX_TEXT_LENGTH:
        raise PresetError(f"the setting {name} is longer than {MAX_TEXT_LENGTH:,} characters")


def shown(value: object) -> str:
    return repr(value)[:80]


class PresetLibrary:
    """The presets of ``folder``. Safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        remove_abandoned(folder)

    def names(self) -> list[str]:
        """Of all presets, whether they can be read or not, in alphabetical order.

        Raises:
            PresetError: the folder cannot be read.
        """
        return sorted(self._paths(), key=str.casefold)

    def listed(self) -> tuple[list[str], list[str]]:
        """The names of the presets that can be loaded, and of those that are broken."""
        good, broken = [], []
        for name in self.names():
            try:
                self.get(name)
            except (PresetError, PageError) as error:
                logger.warning("%s", error)
                broken.append(name)
            else:
                good.append(name)
        return good, broken

    def get(self, name: str) -> Preset:
        """The preset called ``name``.

        Raises:
            PageError: there is none.
            PresetError: its file is broken.
        """
        path = self._path(name)
        try:
            content = path.read_bytes()[: MAX_FILE_BYTES + 1]
            if len(content) > MAX_FILE_BYTES:
                raise ValueError(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
            return Preset.checked(json.loads(content))
        except (OSError, ValueError, RecursionError, PresetError) as error:
            raise PresetError(f"the preset {path.name!r} cannot be read: {error}") from error

    def save(self, name: str, preset: Preset, replace: bool = False) -> str:
        """Store ``preset`` under ``name``, and return the name as it is stored.

        Raises:
            PageError: there is a preset of this name and it is not to be replaced, or there are too many.
            PresetError: the name cannot be used, or the file cannot be written; what was there is as before.
        """
        name = checked_name(name, "preset", PresetError)
        with self._lock:
            paths = self._paths()
            # Names that differ in case only would be one file on some systems.
            taken = [other for other in paths if other.casefold() == name.casefold()]
            if taken and not replace:
                raise PageError("error.preset.exists", name=taken[0])
            if not taken and len(paths) >= MAX_PRESETS:
                raise PageError("error.preset.many", limit=MAX_PRESETS)
            name = taken[0] if taken else name
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_at_once(paths.get(name, self.folder / f"{name}{SUFFIX}"), preset.as_json())
            except OSError as error:
                where = str(self.folder)
                raise PresetError(f"cannot save the preset {name!r} in {where!r}: {error.strerror}") from error
        return name

    def rename(self, name: str, new_name: str) -> str:
        """Call the preset ``name`` ``new_name`` from now on. Returns and raises as ``save`` and ``get``."""
        new_name = checked_name(new_name, "preset", PresetError)
        with self._lock:
            path = self._path(name)
            if new_name.casefold() != path.stem.casefold() and new_name.casefold() in map(str.casefold, self.names()):
                raise PageError("error.preset.exists", name=new_name)
            try:
                path.rename(path.with_name(f"{new_name}{SUFFIX}"))
            except OSError as error:
                raise PresetError(f"cannot rename the preset {path.stem!r}: {error.strerror}") from error
        return new_name

    def delete(self, name: str) -> None:
        """Remove the preset ``name`` for good, be it broken. Raises ``PageError`` if there is none."""
        with self._lock:
            path = self._path(name)
            try:
                path.unlink()
            except OSError as error:
                raise PresetError(f"cannot delete the preset {path.stem!r}: {error.strerror}") from error

    def _paths(self) -> dict[str, Path]:
        """The files by the names of their presets."""
        try:
            paths = [path for path in self.folder.iterdir() if path.suffix == SUFFIX and path.name[0] != "."]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise PresetError(f"cannot read the presets in {str(self.folder)!r}: {error.strerror}") from error
        return {unicodedata.normalize("NFC", path.stem): path for path in paths}

    def _path(self, name: str) -> Path:
        """The file of the preset ``name``; only a name that is listed leads to one."""
        path = self._paths().get(unicodedata.normalize("NFC", name))
        if path is None:
            raise PageError("error.preset.none", name=name[:MAX_NAME_LENGTH])
        return path
