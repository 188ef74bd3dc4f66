"""Packs the teacher for the trip: quantised weights, network sources, symbol table and voices.

    python -m training.pack_teacher --onnx kokoro-v1.0.int8.onnx --kokoro DIR --vocab vocab.json --out PACK

The weights are those of the int8 ONNX export of Kokoro-82M, kept as the integers and scales of that file, so nothing
is lost beyond what the export lost. ``onnx`` is needed here only. ``training/README.md`` says where the inputs are.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from training.teacher import build_network

PART_BYTES = 20 << 20
SOURCES = ("modules.py", "istftnet.py")


@dataclass(frozen=True)
class Quantised:
    """A tensor of integers ``values`` (zero point taken off) and their scale; or floats, with scale None.

    The scale has as many dimensions as the values, of size 1 where it is shared.
    """

    values: np.ndarray
    scale: np.ndarray | None = None

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Quantised:
        """Applies a change of order to values and scale."""
        return Quantised(change(self.values), None if self.scale is None else change(self.scale))


def module_path(node_name: str) -> str:
    """``decoder.generator.ups.0`` from a node name such as ``/decoder/decoder/generator/ups.0/ConvTranspose``."""
    parts = node_name.strip("/").split("/")
    parts = parts[1:] if parts[0] in ("encoder", "decoder") else parts
    path = ""
    for part in parts[:-1]:
        if path.count(".") >= 1 and part.startswith(".".join(path.split(".")[-2:]) + "."):
            path = ".".join([*path.split(".")[:-2], part])
        else:
            path = f"{path}.{part}" if path else part
    return path


def torch_gates(a: np.ndarray) -> np.ndarray:
    """Reorders the gates of an ONNX LSTM (i, o, f, c), on the last axis, to those of torch (i, f, c, o)."""
    i, o, f, c = np.split(a, 4, -1)
    return np.concatenate([i, f, c, o], -1)


class OnnxWeights:
    """Finds the tensors of the exported graph by the parameter names of the torch network."""

    def __init__(self, path: Path) -> None:
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(str(path)).graph
        self.tensors = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.weights: dict[str, Quantised] = {}
        self.lstms: dict[str, list[np.ndarray]] = {}
        for node in graph.node:
            self._read(node)
        for name in list(self.weights):
            if name.startswith(("F0", "N.", "N_proj")):
                self.weights[f"predictor.{name}"] = self.weights[name]
            if "asr_res" in name:
                self.weights["decoder.asr_res.0"] = self.weights[name]
        for name in list(self.lstms):
            if name.startswith("shared"):
                self.lstms["predictor.shared"] = self.lstms[name]

    def _read(self, node) -> None:
        path, inputs = module_path(node.name), node.input
        if node.op_type in ("ConvInteger", "MatMulInteger") and inputs[1] in self.tensors:
            zero = self.tensors[inputs[3]] if len(inputs) > 3 else np.zeros((), np.int8)
            weight = self._quantised(inputs[1].removesuffix("_quantized"), zero)
            if node.op_type == "MatMulInteger":
                weight = weight.map(np.transpose)
            self.weights.setdefault(path, weight)
        elif node.op_type in ("Conv", "ConvTranspose") and inputs[1] in self.tensors:
            self.weights.setdefault(path, Quantised(self.tensors[inputs[1]]))
        elif node.op_type == "DynamicQuantizeLSTM":
            self.lstms[path] = [self.tensors.get(name, np.zeros(0)) for name in inputs]
        elif node.op_type == "MatMul" and "m_source/l_linear" in node.name:
            self.weights["decoder.generator.m_source.l_linear"] = Quantised(self.tensors[inputs[1]].T)

    def _quantised(self, name: str, zero: np.ndarray) -> Quantised:
        values, scale = self.tensors[f"{name}_quantized"].astype(np.int16), self.tensors[f"{name}_scale"]
        return Quantised(values - zero.astype(np.int16), scale.reshape((1,) * (values.ndim - 1) + (-1,)))

    def find(self, parameter: str) -> Quantised | None:
        """The tensor of a torch parameter, None if the graph does not have it."""
        stem, _, leaf = parameter.rpartition(".")
        if leaf == "weight" and stem in self.weights:
            return self.weights[stem]
        for prefix in ("", "encoder.", "decoder."):
            name = prefix + parameter
            if name in self.tensors:
                return Quantised(self.tensors[name])
            if f"{name}_quantized" in self.tensors:
                found = self._quantised(name, self.tensors.get(f"{name}_zero_point", np.zeros((), np.int8)))
                return found.map(np.transpose) if found.values.ndim == 2 and "embed" not in name else found
        if re.match(r"(weight|bias)_(ih|hh)", leaf) and stem in self.lstms:
            return self._lstm(self.lstms[stem], leaf)
        return None

    @staticmethod
    def _lstm(inputs: list[np.ndarray], leaf: str) -> Quantised:
        w, r, bias, w_scale, w_zero, r_scale, r_zero = (inputs[i] for i in (1, 2, 3, 8, 9, 10, 11))
        direction, hidden = int(leaf.endswith("reverse")), r.shape[1]
        if leaf.startswith("bias"):
            half = slice(0, 4 * hidden) if leaf.startswith("bias_ih") else slice(4 * hidden, None)
            return Quantised(torch_gates(bias[direction][half]))
        values, scale, zero = (w, w_scale, w_zero) if leaf.startswith("weight_ih") else (r, r_scale, r_zero)
        scale, zero = (a.reshape(2, 1, -1)[direction] for a in (scale, zero.astype(np.int16)))
        scale = torch_gates(scale) if scale.size > 1 else scale
        return Quantised(torch_gates(values[direction].astype(np.int16) - zero), scale).map(np.transpose)


def pack_weights(onnx_path: Path, kokoro_source: Path) -> bytes:
    """All parameters as a compressed ``.npz``: ``name`` and, where quantised, ``name:scale`` and ``name:low``."""
    weights, arrays, missing = OnnxWeights(onnx_path), {}, []
    for name, parameter in build_network(kokoro_source).state_dict().items():
        found = weights.find(name)
        if found is None or found.values.size != parameter.numel():
            # Not in the graph because unused, or because it still has its initial value.
            if ".norm." not in name and not name.startswith("bert.pooler") and "position_ids" not in name:
                missing.append(name)
            arrays[name] = parameter.numpy()
        elif found.scale is None:
            arrays[name] = found.values.reshape(parameter.shape).astype(np.float32)
        else:
            low = int(found.values.min())
            if int(found.values.max()) - low > 255:
                raise ValueError(f"{name}: more than 8 bits")
            if found.values.shape != parameter.shape:
                raise ValueError(f"{name}: {found.values.shape} in the graph, {tuple(parameter.shape)} expected")
            arrays[name] = (found.values - low).astype(np.uint8)
            arrays[f"{name}:low"], arrays[f"{name}:scale"] = np.int16(low), found.scale.astype(np.float32)
    if missing:
        raise ValueError(f"not found in {onnx_path}: {missing}")
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    return lzma.compress(buffer.getvalue(), preset=6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, required=True, help="the four model parts of the wheels, joined")
    parser.add_argument("--sha256", type=Path, help="file with the SHA-256 that the ONNX file must have")
    parser.add_argument("--kokoro", type=Path, required=True, help="folder with the unpacked package `kokoro`")
    parser.add_argument("--vocab", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.sha256:
        digest = hashlib.sha256(args.onnx.read_bytes()).hexdigest()
        if digest != args.sha256.read_text().strip():
            raise SystemExit(f"{args.onnx}: SHA-256 is {digest}")
    (args.out / "kokoro").mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        shutil.copyfile(args.kokoro / "kokoro" / name, args.out / "kokoro" / name)
    shutil.copyfile(args.vocab, args.out / "vocab.json")
    packed = pack_weights(args.onnx, args.kokoro)
    for number, start in enumerate(range(0, len(packed), PART_BYTES)):
        (args.out / f"teacher.xz.{number}").write_bytes(packed[start : start + PART_BYTES])


if __name__ == "__main__":
    main()
