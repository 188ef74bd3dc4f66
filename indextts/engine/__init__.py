"""The model, loaded and ready to speak: ``Engine``."""

from indextts.engine.engine import Engine

__all__ = ["Engine"]
