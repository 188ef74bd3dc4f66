"""The tiny golden model as a folder in the official layout, for tests of everything that needs a model that runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from indextts.checkpoints import AUXILIARY
from tests.golden.conftest import GoldenSet


def write_model(golden: GoldenSet, folder: Path, solver_steps: int = 25) -> None:
    """The golden weights as an official download: pickles, nested dicts, auxiliary models under ``hf_cache``."""
    manifest = golden.manifest["end_to_end"]
    config = {k: v for k, v in manifest["config"].items() if k not in ("gpt_layer_dims", "campplus", "bigvgan")}
    style_encoder = dict(manifest["config"]["campplus"])
    assert style_encoder.pop("embedding_size") == config["s2mel"]["style_encoder"]["dim"]
    s2mel = {**config["s2mel"], "gpt_layer_dims": manifest["config"]["gpt_layer_dims"], "steps": solver_steps}
    s2mel["style_encoder"] = {**s2mel["style_encoder"], **style_encoder}
    w2v = {**config["w2v_bert"], "output_layer": 17}
    config = {**config, "s2mel": s2mel, "w2v_bert": w2v, "vocoder": manifest["config"]["bigvgan"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    shutil.copy(golden.dir / manifest["bpe_model"], folder / "bpe.model")

    weights = {key: load_file(golden.dir / name) for key, name in manifest["weights"].items()}
    weights = {key: {k.removeprefix("w."): v for k, v in tensors.items()} for key, tensors in weights.items()}
    misc = weights["misc"]
    torch.save({"mean": misc["mean"], "var": misc["var"]}, folder / "wav2vec2bert_stats.pt")
    torch.save(misc["spk_matrix"], folder / "feat1.pt")
    torch.save(misc["emo_matrix"], folder / "feat2.pt")
    torch.save({"model": weights["gpt"]}, folder / "gpt.pth")
    net: dict[str, dict[str, Tensor]] = {}
    for key, value in weights["s2mel"].items():
        module, rest = key.split(".", 1)
        net.setdefault(module, {})[f"module.{rest}"] = value
    torch.save({"net": net, "optimizer": {}, "epoch": 3}, folder / "s2mel.pth")
    places = {key: folder / "hf_cache" / names[0] for key, (_, _, names) in AUXILIARY.items()}
    for place in places.values():
        place.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights["w2v"], places["w2v_bert"])
    save_file(weights["codec"], places["semantic_codec"])
    torch.save(weights["campplus"], places["campplus"])
    torch.save({"generator": weights["bigvgan"]}, places["bigvgan"])
