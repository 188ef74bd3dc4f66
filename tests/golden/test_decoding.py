"""Score processing and search against golden tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from indextts.config import GPTConfig, SamplingParams
from indextts.config_file import build_dataclass
from indextts.decoding.backend import EagerBackend
from indextts.decoding.logits import process_logits
from indextts.decoding.search import Generation, generate
from indextts.models.gpt import UnifiedVoice

GREEDY = SamplingParams(do_sample=False, num_beams=1, temperature=1.0, top_k=0, top_p=1.0)


def load_gpt(case: Any) -> UnifiedVoice:
    raw = {key: value for key, value in case.config.items() if not key.startswith("_")}
    model = UnifiedVoice(build_dataclass(GPTConfig, raw, "gpt"))
    model.load_state_dict(case.weights, strict=True)
    return model.eval().requires_grad_(False)


class RecordingBackend(EagerBackend):
    """Keeps the logits that it hands out, ``[1, V]`` each."""

    def prefill(self, embeddings: Tensor, mask: Tensor, *, num_beams: int, max_codes: int) -> Tensor:
        logits = super().prefill(embeddings, mask, num_beams=num_beams, max_codes=max_codes)
        self.logits = [logits]
        return logits

    def step(self, codes: Tensor, beams: Tensor | None = None) -> Tensor:
        logits = super().step(codes, beams)
        self.logits.append(logits[:, 0])
        return logits


def run(backend: EagerBackend, case: Any, params: SamplingParams) -> Generation:
    cond = backend.model.condition(case.input("spk"), case.input("spk_len"))
    return generate(backend, *backend.model.prefix(cond, case.input("emovec"), case.input("text")), params)


def with_stop(result: Generation, stop_code: int) -> Tensor:
    """The codes of a batch of one as the golden cases have them: a stop code at the end unless cut off."""
    (codes,), (hit_limit,) = result.codes, result.hit_limit
    return codes[None] if hit_limit else torch.nn.functional.pad(codes, (0, 1), value=stop_code)[None]


def params_of(raw: dict[str, Any]) -> SamplingParams:
    raw = dict(raw)
    raw["max_mel_tokens"] = raw.pop("max_generate_length")
    if not raw["do_sample"]:
        raw = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | raw
    return SamplingParams(**raw)


def test_logits_processing(golden: Any) -> None:
    case = golden.component("logits_processing")
    logits = case.input("logits")
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, case.input("input_ids"), True)
    assert case.config["cases"]
    for name, raw in case.config["cases"].items():
        case.check(name, process_logits(logits, seen, SamplingParams(**raw)))


def test_greedy(golden: Any) -> None:
    case = golden.component("gpt_greedy")
    backend = RecordingBackend(load_gpt(case))
    penalties = [name.removesuffix(".codes") for name in case.names("out") if name.endswith(".codes")]
    assert penalties
    for name in penalties:
        want = case.output(f"{name}.codes")
        penalty = float(name.removeprefix("rp"))
        params = SamplingParams(**{**vars(GREEDY), "repetition_penalty": penalty, "max_mel_tokens": want.shape[1]})
        case.check(f"{name}.codes", with_stop(run(backend, case, params), backend.stop_code))
        logits = torch.stack(backend.logits, dim=1)
        case.check(f"{name}.logits", logits)
        seen = torch.zeros_like(logits, dtype=torch.bool)
        seen[..., [1, backend.start_code]] = True
        for step in range(1, logits.shape[1]):
            seen[:, step:, want[0, step - 1]] = True
        case.check(f"{name}.scores", process_logits(logits, seen, params))


def test_beam_search(golden: Any) -> None:
    case = golden.component("gpt_beam")
    backend = EagerBackend(load_gpt(case))
    assert case.config["_beam_cases"]
    for name, raw in case.config["_beam_cases"].items():
        result = run(backend, case, params_of(raw))
        case.check(f"{name}.codes", with_stop(result, backend.stop_code))
        case.check(f"{name}.sequence_score", torch.tensor(result.scores))


def test_seeded_sampling(golden: Any) -> None:
    case = golden.component("gpt_beam_sample_rng")
    backend = EagerBackend(load_gpt(case))
    assert case.config["_sample_cases"]
    for name, (seed, raw) in case.config["_sample_cases"].items():
        torch.manual_seed(seed)
        case.check(f"{name}.codes", with_stop(run(backend, case, params_of(raw)), backend.stop_code))
