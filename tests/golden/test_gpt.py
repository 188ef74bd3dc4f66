"""The GPT and its encoders against golden tensors."""

from __future__ import annotations

from typing import Any

import torch

from indextts.config import ConformerConfig, GPTConfig
from indextts.config_file import build_dataclass
from indextts.decoding.backend import EagerBackend
from indextts.models.conformer import ConformerEncoder, sinusoidal_positions
from indextts.models.gpt import UnifiedVoice
from indextts.models.perceiver import PerceiverResampler


def load_gpt(case: Any) -> UnifiedVoice:
    raw = {key: value for key, value in case.config.items() if not key.startswith("_")}
    model = UnifiedVoice(build_dataclass(GPTConfig, raw, "gpt"))
    model.load_state_dict(case.weights, strict=True)
    return model.eval().requires_grad_(False)


def test_conformer(golden: Any) -> None:
    case = golden.component("conformer")
    raw = {key: value for key, value in case.config.items() if key not in ("input_size", "input_layer")}
    config = build_dataclass(ConformerConfig, raw, "conformer")
    encoder = ConformerEncoder(case.config["input_size"], config).eval()
    encoder.load_state_dict(case.weights, strict=True)
    with torch.no_grad():
        y, mask = encoder(case.input("x"), case.input("lengths"))
        case.check("subsampled_scaled", encoder.embed(case.input("x")))
    case.check("y", y)
    case.check("mask", mask[:, None])
    case.check("pos_emb", sinusoidal_positions(y.shape[1], y.shape[2]))


def test_perceiver(golden: Any) -> None:
    case = golden.component("perceiver")
    dim_head = case.weights["layers.0.0.to_q.weight"].shape[0] // case.config["heads"]
    resampler = PerceiverResampler(**case.config, dim_head=dim_head).eval()
    resampler.load_state_dict(case.weights, strict=True)
    mask = case.input("mask").bool()[:, case.config["num_latents"] :]  # the latents are always visible
    with torch.no_grad():
        case.check("y_nomask", resampler(case.input("x")))
        case.check("y_masked", resampler(case.input("x"), mask))


def test_conditioning(golden: Any) -> None:
    case = golden.component("gpt_conditioning")
    model = load_gpt(case)
    speaker, speaker_lengths = case.input("spk"), case.input("spk_len")
    emotion, emotion_lengths = case.input("emo"), case.input("emo_len")
    case.check("cond", model.condition(speaker, speaker_lengths))
    raw = model.emo_perceiver_encoder(*model.emo_conditioning_encoder(emotion, emotion_lengths))[:, 0]
    case.check("emo_raw", raw)
    base = model.emotion_vector(speaker, speaker_lengths)
    emo = model.emotion_vector(emotion, emotion_lengths)
    case.check("emovec_spk", base)
    case.check("emovec_emo", emo)
    merged = [name for name in case.names("out") if name.startswith("merged_alpha_")]
    assert merged
    for name in merged:
        case.check(name, model.merge_emotion(base, emo, float(name.removeprefix("merged_alpha_"))))


def test_prefix_and_first_logits(golden: Any) -> None:
    case = golden.component("gpt_prefill")
    model = load_gpt(case)
    for text in ("text", "text_with_specials"):
        embeddings, mask = model.prefix(case.input("cond"), case.input("emovec"), case.input(text))
        case.check(f"{text}.prefix_emb", embeddings)
        case.check(f"{text}.attention_mask", torch.nn.functional.pad(mask, (0, 1), value=True))
        backend = EagerBackend(model)
        case.check(f"{text}.last_logits", backend.prefill(embeddings, mask, num_beams=1, max_codes=1))


def test_all_logits(golden: Any) -> None:
    case = golden.component("gpt_prefill")
    model = load_gpt(case)
    embeddings, _ = model.prefix(case.input("cond"), case.input("emovec"), case.input("text"))
    start = model.embed_codes(torch.tensor([[model.config.start_mel_token]]), torch.tensor([0]))
    case.check("text.all_logits", model.code_logits(model.gpt(torch.cat((embeddings, start), dim=1))))


def test_cached_steps(golden: Any) -> None:
    case = golden.component("gpt_prefill")
    backend = EagerBackend(load_gpt(case))
    forced = case.input("forced")
    prefix = backend.model.prefix(case.input("cond"), case.input("emovec"), case.input("text"))
    backend.prefill(*prefix, num_beams=1, max_codes=forced.shape[1] + 1)
    logits = [backend.step(forced[:, n : n + 1]) for n in range(forced.shape[1])]
    case.check("forced_step_logits", torch.cat(logits, dim=1))


def test_latents(golden: Any) -> None:
    case = golden.component("gpt_latent")
    model = load_gpt(case)
    inputs = (case.input(name) for name in ("cond", "emovec", "text", "codes"))
    case.check("latent", model.latents(*inputs))
