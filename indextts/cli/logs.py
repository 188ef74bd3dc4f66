"""How the programs of this package log: to stderr, quietly unless ``--verbose``."""

from __future__ import annotations

import logging


def setup_logging(verbose: bool, level: int = logging.INFO) -> None:
    """Show our own messages from ``level`` up, those of libraries from warnings up; everything when ``verbose``."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", force=True)
    own = logging.DEBUG if verbose else level
    for name in ("indextts", "webui"):
        logging.getLogger(name).setLevel(own)
