"""The web page: ``build_app`` makes it around an engine, ``launch`` serves it. The only package importing gradio."""

from indextts.webui.app import build_app, launch

__all__ = ["build_app", "launch"]
