"""What is declared is what is imported, and what is installed speaks."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from indextts.config import EngineConfig
from indextts.engine import Engine
from indextts.errors import UnsupportedOption
from indextts.resources import DS_CONFIG, EXAMPLES_DIR, NANO_DIR

ROOT = Path(__file__).parents[1]
NOT_IMPORTED = {"python-multipart": "fastapi reads uploaded files with it"}
"""Declared dependencies that no line imports, each with the reason why it is needed all the same."""


def shipped() -> list[Path]:
    return [*(ROOT / "indextts").rglob("*.py"), ROOT / "webui.py", *(ROOT / "tools").rglob("*.py")]


def imported_modules(path: Path) -> Iterator[str]:
    """Top-level names that a file imports, at its top, inside a function, or by ``import_module("name")``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            assert isinstance(node.args[0], ast.Constant), f"{path}: which module is imported cannot be told"
            yield str(node.args[0].value).split(".")[0]


def imported_distributions() -> dict[str, Path]:
    """The distributions that the shipped files import, each with one file that does.

    Of several that share a name, as those of NVIDIA share ``cuda``, the declared ones are meant.
    """
    providers, declared = importlib.metadata.packages_distributions(), declared_distributions()
    found: dict[str, Path] = {}
    for path in shipped():
        for module in set(imported_modules(path)) - set(sys.stdlib_module_names) - {"indextts"}:
            assert module in providers, f"{path.relative_to(ROOT)} imports {module}, which is not installed"
            names = {canonicalize_name(name) for name in providers[module]}
            found.update(dict.fromkeys(names & declared or names, path))
    return found


def declared_distributions() -> set[str]:
    """Dependencies and extras, as the installed package names them, that apply to this system."""
    requirements = [Requirement(line) for line in importlib.metadata.requires("indextts2") or ()]
    every = [r for r in requirements if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in ("", "plot"))]
    return {canonicalize_name(requirement.name) for requirement in every}


def test_every_import_is_declared() -> None:
    declared = declared_distributions()
    undeclared = {name: str(path.relative_to(ROOT)) for name, path in imported_distributions().items()}
    assert {name: path for name, path in undeclared.items() if name not in declared} == {}


def test_every_dependency_is_imported() -> None:
    assert declared_distributions() - set(imported_distributions()) == set(NOT_IMPORTED)


def test_the_bundled_files_are_there() -> None:
    assert DS_CONFIG.is_file() and (NANO_DIR / "config.yaml").is_file() and (EXAMPLES_DIR / "cases.jsonl").is_file()


def test_without_deepspeed_its_flag_is_a_clear_error(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NotInstalled:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == "deepspeed":
                raise ModuleNotFoundError("No module named 'deepspeed'", name="deepspeed")

    monkeypatch.delitem(sys.modules, "deepspeed", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled, *sys.meta_path])
    with pytest.raises(UnsupportedOption, match=r"not installed.*on Linux alone.*leave the flag out"):
        Engine.load(EngineConfig(model_dir=tiny_model_dir, device="cpu", deepspeed=True))


@pytest.mark.slow
def test_an_installed_wheel_speaks_from_anywhere(tmp_path: Path) -> None:
    """Build the wheel, install it with its locked dependencies in a fresh environment, speak from another folder."""

    def run(*words: str, cwd: Path = ROOT) -> str:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    constraints, environment = tmp_path / "constraints.txt", tmp_path / "venv"
    run("uv", "build", "--wheel", "--out-dir", str(tmp_path))
    exported = run("uv", "export", "--locked", "--no-dev", "--no-emit-project", "--no-hashes")
    constraints.write_text(exported, encoding="utf-8")
    run("uv", "venv", "--python", sys.executable, str(environment))
    python, wheel = str(environment / "bin" / "python"), str(next(tmp_path.glob("*.whl")))
    run("uv", "pip", "install", "--python", python, "--constraint", str(constraints), wheel)
    indextts = str(environment / "bin" / "indextts")
    run(indextts, "synth", "--text", "The package speaks by itself.", "--seed", "1", "-o", "out.wav", cwd=elsewhere)
    library = "import pathlib, indextts.voices as v; v.VoiceLibrary(pathlib.Path('none')).get('voice_01').prompt()"
    run(python, "-c", library, cwd=elsewhere)
    samples, rate_hz = soundfile.read(elsewhere / "out.wav", dtype="int16")
    assert rate_hz == 22050 and len(samples) > rate_hz // 2
    assert np.abs(samples).max() > 1000 and samples.std() > 100
