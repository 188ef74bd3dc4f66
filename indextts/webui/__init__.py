"""The web page: ``build_app`` makes it around a service, ``launch`` serves it, ``mount`` adds it to a server.

The only package that imports gradio.
"""

from indextts.webui.app import Access, build_app, launch, mount

__all__ = ["Access", "build_app", "launch", "mount"]
