"""The HTTP interface, compatible with OpenAI's for speech: ``create_app`` makes it around a service.

The only package that imports fastapi.
"""

from indextts.api.app import create_app
from indextts.api.settings import ApiSettings

__all__ = ["ApiSettings", "create_app"]
