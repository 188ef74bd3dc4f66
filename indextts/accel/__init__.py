"""Making a loaded model faster, after the fact: each technique is one file, imported only when it is asked for."""

from indextts.accel.apply import accelerate, resolve_device

__all__ = ["accelerate", "resolve_device"]
