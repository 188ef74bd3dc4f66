"""Making a loaded model faster, after the fact: each technique is one file, imported only when it is asked for."""

from indextts.accel.apply import accelerate, conversion, relieve, resolve_device
from indextts.accel.offload import can_offload

__all__ = ["accelerate", "can_offload", "conversion", "relieve", "resolve_device"]
