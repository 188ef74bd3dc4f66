"""Who may import whom, read from the source; and what an import costs, tried in a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "indextts"

# Each part of the package may import itself and the parts of the rows above its own.
LAYERS = (
    ("errors",),
    ("resources", "files", "memory", "subtitles"),
    ("config", "text"),
    ("config_file",),
    ("types", "turns", "manifest", "cuda_graphs"),
    ("audio", "models", "hub", "client"),
    ("decoding", "checkpoints", "emotion", "encoding", "prompts"),
    ("loading", "text_emotion"),
    ("stages", "accel", "voices"),
    ("engine",),
    ("random_weights", "service"),
    ("bench", "checks", "random_checkpoint"),
    ("infer_v2", "api", "webui"),
    ("cli",),
)
BELOW = {part: {p for row in LAYERS[:level] for p in row} for level, row in enumerate(LAYERS) for part in row}


def files(part: str = "") -> list[Path]:
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str | None:
    """``indextts.models.gpt`` -> ``models``; None for other packages and for the package's own ``__version__``."""
    names = module.split(".")
    return names[1] if names[0] == "indextts" and names[1:2] not in ([], ["__version__"]) else None


def importers(package: str) -> set[str]:
    """The files, from the root of the repository, that import ``package``."""
    found = [p for p in (*files(), ROOT / "webui.py") if any(m.split(".")[0] == package for m in imports(p))]
    return {str(path.relative_to(ROOT)) for path in found}


def test_every_part_has_a_layer() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} == set(BELOW)


@pytest.mark.parametrize("part", BELOW)
def test_imports_go_down(part: str) -> None:
    for path in files(part):
        ours = {found for module in imports(path) if (found := part_of(module))}
        assert ours <= BELOW[part] | {part}, path


def test_models_know_only_siblings_configuration_and_errors() -> None:
    for path in files("models"):
        assert {part_of(m) for m in imports(path)} <= {None, "models", "config", "errors"}, path


def test_heavy_packages_have_one_door() -> None:
    assert importers("deepspeed") == {"indextts/accel/deepspeed.py"}
    gradio = importers("gradio") | importers("gradio_client")
    assert gradio and all(path.startswith("indextts/webui/") for path in gradio)
    assert not {path for path in importers("torch") if path.startswith(("indextts/webui/", "indextts/text/"))}
    assert not {path for path in importers("torch") if path.startswith(("indextts/api/", "indextts/service"))}
    assert "webui.py" not in importers("torch")
    served = importers("fastapi") | importers("pydantic") | importers("prometheus_client")
    assert served and all(path.startswith("indextts/api/") for path in served)
    assert importers("uvicorn") == {"indextts/api/server.py"}
    assert importers("transformers") <= {"indextts/models/semantic_encoder.py", "indextts/emotion.py"}


LIGHT = ("", ".types", ".text.tokenizer", ".service", ".voices", ".cli")


@pytest.mark.parametrize("module", [*(f"indextts{name}" for name in LIGHT), "webui"])
def test_a_light_import(module: str) -> None:
    heavy = ("torch", "torchaudio", "transformers", "gradio", "fastapi", "uvicorn", "deepspeed", "librosa")
    program = f"import sys, {module}; print(*(name for name in {heavy} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("\n", "")


def test_importing_the_engine_starts_nothing() -> None:
    program = (
        "import sys, logging, threading, indextts.infer_v2, torch\n"
        "assert not {'deepspeed', 'gradio'} & set(sys.modules)\n"
        "assert not logging.getLogger().handlers and threading.active_count() == 1\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_nothing_prints() -> None:
    for path in (*files(), ROOT / "webui.py"):
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path
