"""IndexTTS2: zero-shot voice cloning with emotion control.

``indextts.infer_v2.IndexTTS2`` is the public class, ``indextts.engine.Engine`` what it stands on.
"""

__version__ = "0.1.0"
