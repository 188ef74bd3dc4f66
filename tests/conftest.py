"""Options and fixtures shared by all tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from indextts.engine import Engine
    from tests.golden.conftest import GoldenSet

GOLDEN_DIR = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", default=str(GOLDEN_DIR), help="folder of the golden set to test with")
    parser.addoption("--screenshots", help="folder for pictures of the page, which tests/browser takes")


def pytest_configure(config: pytest.Config) -> None:
    import torch

    torch.set_num_threads(1)  # the tensors of nearly all tests are so small that more threads only wait for each other


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The programs set up logging for the whole process; the next test shall not notice."""
    root, own = logging.getLogger(), [logging.getLogger(name) for name in ("indextts", "webui")]
    handlers, levels = root.handlers[:], [logger.level for logger in (root, *own)]
    yield
    root.handlers[:] = handlers
    for logger, level in zip((root, *own), levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def own_golden() -> GoldenSet:
    """The golden set of this repository, whatever ``--golden`` says."""
    from tests.golden.conftest import GoldenSet

    return GoldenSet(GOLDEN_DIR)


@pytest.fixture(scope="session")
def tiny_model_dir(own_golden: GoldenSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder in the official layout that loads in a second. Do not write into it: copy it."""
    from tests.tiny_model import write_model

    folder = tmp_path_factory.mktemp("tiny_model")
    write_model(own_golden, folder, solver_steps=3)
    return folder


@pytest.fixture(scope="session")
def tiny_engine(tiny_model_dir: Path) -> Engine:
    """The tiny model, loaded for the CPU. Its sound is noise, but every stage runs."""
    from indextts.config import EngineConfig
    from indextts.engine import Engine

    return Engine.load(EngineConfig(model_dir=tiny_model_dir, device="cpu"))


@pytest.fixture(scope="session")
def recordings() -> tuple[Path, Path]:
    """Two short recordings of different speakers."""
    return GOLDEN_DIR / "e2e_spk.wav", GOLDEN_DIR / "e2e_emo.wav"
