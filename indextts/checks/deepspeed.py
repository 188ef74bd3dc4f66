"""DeepSpeed: installed, importable, and which of its own kernels it has."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys

from indextts.accel.deepspeed import OpState, op_states
from indextts.checks.report import FAILED, NOTE, OK, Check
from indextts.errors import UnsupportedOption

INSTALL = "install it: uv sync, or pip install 'deepspeed>=0.19.8,<0.20'"


def check_deepspeed(is_asked: bool) -> tuple[Check, tuple[OpState, ...]]:
    """Whether DeepSpeed can be imported; that it is absent is a failure only if it is asked for."""
    if importlib.util.find_spec("deepspeed") is None:
        advice = INSTALL if sys.platform == "linux" else "leave --deepspeed out: it is for Linux"
        return Check("DeepSpeed", FAILED if is_asked else NOTE, "not installed", advice), ()
    version = importlib.metadata.version("deepspeed")
    try:
        ops = op_states()
    except UnsupportedOption as error:
        return Check("DeepSpeed", FAILED, f"{version}: {error}", f"{INSTALL}; or run without --deepspeed"), ()
    return Check("DeepSpeed", OK, f"{version}; its own kernels are listed below, decoding uses none of them"), ops
