"""The search against a plain one that re-reads the whole sequence at every step, and in batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from indextts.config import SamplingParams
from indextts.decoding import backend as backend_module
from indextts.decoding.backend import EagerBackend
from indextts.decoding.kv_cache import KVCache
from indextts.decoding.logits import process_logits
from indextts.decoding.search import Decoding, generate
from indextts.errors import Cancelled, ConfigError
from indextts.models.gpt import UnifiedVoice
from tests.decoding.conftest import CONFIG, texts

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_mel_tokens": 24}


def slow_logits(model: UnifiedVoice, prefix: Tensor, codes: list[int]) -> Tensor:
    """Logits ``[V]`` after the codes, without a cache and with the positions of decoding."""
    inputs = torch.tensor([[CONFIG.start_mel_token, *codes]])
    positions = torch.tensor([0, *range(2, len(codes) + 2)])
    embeddings = torch.cat((prefix, model.embed_codes(inputs, positions)), dim=1)
    return model.code_logits(model.gpt(embeddings))[0, -1]


def slow_beam_search(
    model: UnifiedVoice, prefix: Tensor, params: SamplingParams, noise: list[Tensor] | None = None
) -> tuple[list[int], bool, float]:
    """Beam search in plain lists, as the spec tells it; beam sampling with the noise ``[B * V]`` of each step."""
    beams = params.num_beams
    running: list[tuple[float, list[int]]] = [(0.0, [])] + [(-1e9, [])] * (beams - 1)
    finished: list[tuple[float, list[int]]] = []

    def add(score: float, codes: list[int]) -> None:
        if len(finished) < beams or score > min(finished)[0]:
            finished.append((score, codes))
            if len(finished) > beams:
                finished.remove(min(finished, key=lambda entry: entry[0]))

    for step in range(1, params.max_mel_tokens + 1):
        candidates = []
        for total, codes in running:
            seen = torch.zeros(CONFIG.number_mel_codes, dtype=torch.bool)
            seen[[1, CONFIG.start_mel_token, *codes]] = True
            scores = process_logits(slow_logits(model, prefix, codes), seen, params, CONFIG.start_mel_token) + total
            candidates += [(score, [*codes, code]) for code, score in enumerate(scores.tolist())]
        if noise is not None:
            totals = torch.tensor([entry[0] for entry in candidates])
            drawn = (totals.softmax(0) / noise[step - 1]).topk(2 * beams).indices
            candidates = [candidates[index] for index in drawn]
        candidates.sort(key=lambda entry: -entry[0])
        best = candidates[0][0]
        running = []
        for rank, (total, codes) in enumerate(candidates[: 2 * beams]):
            if codes[-1] != CONFIG.stop_mel_token:
                running.append((total, codes))
            elif rank < beams:
                add(total / step**params.length_penalty, codes[:-1])
            if len(running) == beams:
                break
        if len(finished) == beams and min(finished)[0] >= best / step**params.length_penalty:
            break
    else:
        for total, codes in running:
            add(total / params.max_mel_tokens**params.length_penalty, codes)
    score, codes = max(finished, key=lambda entry: entry[0])
    return codes, len(codes) == params.max_mel_tokens, score


def slow_sampling(
    model: UnifiedVoice, prefix: Tensor, params: SamplingParams, noise: list[Tensor]
) -> tuple[list[int], bool]:
    """Draws code by code, with the exponential noise ``[V]`` of each step."""
    codes: list[int] = []
    for step in range(params.max_mel_tokens):
        seen = torch.zeros(CONFIG.number_mel_codes, dtype=torch.bool)
        seen[[1, CONFIG.start_mel_token, *codes]] = True
        scores = process_logits(slow_logits(model, prefix, codes), seen, params, CONFIG.start_mel_token)
        code = int((scores.softmax(-1) / noise[step]).argmax())
        if code == CONFIG.stop_mel_token:
            return codes, False
        codes.append(code)
    return codes, True


SAMPLE_SETTINGS: list[dict[str, Any]] = [
    {"num_beams": 3},
    {"num_beams": 1},
    {"num_beams": 1, "typical_sampling": True, "repetition_penalty": 1.0},
    {"num_beams": 2, "typical_sampling": True, "length_penalty": 1.0, "repetition_penalty": 1.0},
    {"num_beams": 4, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "length_penalty": -1.0},
    {"num_beams": 3, "top_p": 0.5, "temperature": 1.5, "repetition_penalty": 2.0, "length_penalty": 2.0},
]


@pytest.mark.parametrize("settings", SAMPLE_SETTINGS)
@pytest.mark.parametrize("stop_bias", [0.5, -1.0])
def test_sampling_in_a_batch_equals_the_plain_one(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], settings: dict[str, Any], stop_bias: float
) -> None:
    """On the same draws, wherever a segment has its place: finished ones give theirs up."""
    params = SamplingParams(max_mel_tokens=20, **settings)
    ids, lengths = texts()
    model.mel_head.bias[CONFIG.stop_mel_token] = stop_bias
    try:
        for seed in range(4):
            generator = torch.Generator().manual_seed(seed)
            noise = torch.empty(20, len(ids), params.num_beams * CONFIG.number_mel_codes)
            for step in noise:
                step.exponential_(1, generator=generator)
            generator.manual_seed(seed)
            result = generate(EagerBackend(model), *model.prefix(*conds, ids, lengths), params, generator=generator)
            for segment, length in enumerate(lengths.tolist()):
                prefix, _ = model.prefix(*conds, ids[segment : segment + 1, :length])
                draws = list(noise[:, segment])
                if params.num_beams == 1:
                    expected = slow_sampling(model, prefix, params, draws)
                else:
                    expected = slow_beam_search(model, prefix, params, draws)[:2]
                assert (result.codes[segment].tolist(), result.hit_limit[segment]) == expected
    finally:
        model.mel_head.bias[CONFIG.stop_mel_token] = 0.5


@pytest.mark.parametrize("num_beams", [1, 3])
def test_how_often_the_host_looks_changes_nothing(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], num_beams: int
) -> None:
    """Neither the codes nor what the caller draws next."""
    params = SamplingParams(num_beams=num_beams, max_mel_tokens=20)
    results = []
    for steps_per_look in (1, 3, 8, 100):
        generator = torch.Generator().manual_seed(5)
        result = generate(
            EagerBackend(model),
            *model.prefix(*conds, *texts()),
            params,
            generator=generator,
            steps_per_look=steps_per_look,
        )
        results.append(([codes.tolist() for codes in result.codes], result.scores, generator.get_state().tolist()))
    assert max(len(codes) for codes in results[0][0]) not in (0, 3, 8, 20)  # there were steps too many
    for other in results[1:]:
        assert other[0] == results[0][0] and other[2] == results[0][2]
        assert other[1] is None if num_beams == 1 else other[1] == pytest.approx(results[0][1], abs=1e-4)


def test_finished_segments_give_up_their_places(model: UnifiedVoice, conds: tuple[Tensor, Tensor]) -> None:
    places = []
    hook = model.mel_embedding.register_forward_hook(lambda module, args, output: places.append(len(args[0])))
    try:
        params = SamplingParams(do_sample=False, num_beams=1, repetition_penalty=10.0, **PLAIN)  # type: ignore[arg-type]
        result = generate(EagerBackend(model), *model.prefix(*conds, *texts()), params)
    finally:
        hook.remove()
    lengths = [len(codes) for codes in result.codes]
    assert len(set(lengths)) > 1
    assert places[1:] == [sum(length > step for length in lengths) for step in range(max(lengths))]


def test_a_cache_that_is_full_grows(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = model.prefix(*conds, *texts())
    capacities = []

    class Watched(EagerBackend):
        def _use_cache(self, cache: KVCache) -> None:
            capacities.append(cache.capacity)
            super()._use_cache(cache)

    params = SamplingParams(do_sample=False, max_mel_tokens=30, repetition_penalty=1.5)
    model.mel_head.bias[CONFIG.stop_mel_token] -= 1000
    try:
        expected = generate(Watched(model), *prefix, params)
        assert len(set(capacities)) == 1
        capacities.clear()
        monkeypatch.setattr(backend_module, "FIRST_STEPS", 1)
        monkeypatch.setattr(backend_module, "SLOT_BLOCK", 8)
        result = generate(Watched(model), *prefix, params)
    finally:
        model.mel_head.bias[CONFIG.stop_mel_token] += 1000
    assert len(set(capacities)) > 1
    assert [codes.tolist() for codes in result.codes] == [codes.tolist() for codes in expected.codes]


BEAM_SETTINGS = [
    {"num_beams": 3, "repetition_penalty": 10.0, "length_penalty": 0.0},
    {"num_beams": 3, "repetition_penalty": 1.0, "length_penalty": 1.0},
    {"num_beams": 2, "repetition_penalty": 1.5, "length_penalty": -1.0},
    {"num_beams": 4, "repetition_penalty": 2.0, "length_penalty": 0.5, "temperature": 0.7, "top_k": 6},
    {"num_beams": 3, "repetition_penalty": 1.0, "length_penalty": 2.0, "max_mel_tokens": 5},
]


@pytest.mark.parametrize("settings", BEAM_SETTINGS)
def test_beam_search_in_a_batch_equals_the_plain_one(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], settings: dict[str, float]
) -> None:
    params = SamplingParams(do_sample=False, **{**PLAIN, **settings})  # type: ignore[arg-type]
    ids, lengths = texts()
    result = generate(EagerBackend(model), *model.prefix(*conds, ids, lengths), params)
    assert result.scores is not None
    for segment, length in enumerate(lengths.tolist()):
        prefix, _ = model.prefix(*conds, ids[segment : segment + 1, :length])
        codes, hit_limit, score = slow_beam_search(model, prefix, params)
        assert result.codes[segment].tolist() == codes
        assert result.hit_limit[segment] == hit_limit
        assert math.isclose(result.scores[segment], score, rel_tol=1e-4, abs_tol=1e-4)


@pytest.mark.parametrize("penalty", [1.0, 10.0])
def test_greedy_in_a_batch_equals_the_plain_one(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], penalty: float
) -> None:
    params = SamplingParams(do_sample=False, num_beams=1, repetition_penalty=penalty, **PLAIN)  # type: ignore[arg-type]
    ids, lengths = texts()
    result = generate(EagerBackend(model), *model.prefix(*conds, ids, lengths), params)
    for segment, length in enumerate(lengths.tolist()):
        prefix, _ = model.prefix(*conds, ids[segment : segment + 1, :length])
        codes: list[int] = []
        for _ in range(params.max_mel_tokens):
            seen = torch.zeros(CONFIG.number_mel_codes, dtype=torch.bool)
            seen[[1, CONFIG.start_mel_token, *codes]] = True
            logits = slow_logits(model, prefix, codes)
            code = int(process_logits(logits, seen, params, CONFIG.start_mel_token).argmax())
            if code == CONFIG.stop_mel_token:
                break
            codes.append(code)
        assert result.codes[segment].tolist() == codes
        assert result.hit_limit[segment] == (len(codes) == params.max_mel_tokens)


def test_segments_of_a_batch_end_at_different_lengths(model: UnifiedVoice, conds: tuple[Tensor, Tensor]) -> None:
    """Guards the tests above: batches in which all segments run to the limit would prove little."""
    params = SamplingParams(do_sample=False, **PLAIN, repetition_penalty=10.0)  # type: ignore[arg-type]
    result = generate(EagerBackend(model), *model.prefix(*conds, *texts()), params)
    assert len({len(codes) for codes in result.codes}) > 1
    assert not all(result.hit_limit)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_the_seed_decides(model: UnifiedVoice, conds: tuple[Tensor, Tensor], num_beams: int) -> None:
    params = SamplingParams(num_beams=num_beams, max_mel_tokens=20, repetition_penalty=1.0, top_p=1.0, temperature=1.0)
    prefix = model.prefix(*conds, *texts())

    def draw(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [codes.tolist() for codes in generate(EagerBackend(model), *prefix, params, generator=generator).codes]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_one_candidate_is_drawn_like_the_best(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], num_beams: int
) -> None:
    """With ``top_k`` 1 one beam has nothing to choose; with more, sampling must survive -inf scores."""
    prefix = model.prefix(*conds, *texts())
    sampled = SamplingParams(num_beams=num_beams, top_k=1, max_mel_tokens=12)
    result = generate(EagerBackend(model), *prefix, sampled, generator=torch.Generator().manual_seed(0))
    assert all(0 <= int(code) < CONFIG.start_mel_token for codes in result.codes for code in codes)
    if num_beams == 1:
        best = SamplingParams(num_beams=1, top_k=1, max_mel_tokens=12, do_sample=False)
        expected = generate(EagerBackend(model), *prefix, best)
        assert [c.tolist() for c in result.codes] == [c.tolist() for c in expected.codes]


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("do_sample", [False, True])
def test_the_start_code_is_never_drawn(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], num_beams: int, do_sample: bool
) -> None:
    model.mel_head.bias[CONFIG.start_mel_token] += 100
    try:
        params = SamplingParams(num_beams=num_beams, do_sample=do_sample, max_mel_tokens=8, repetition_penalty=1.0)
        result = generate(EagerBackend(model), *model.prefix(*conds, *texts()), params)
    finally:
        model.mel_head.bias[CONFIG.start_mel_token] -= 100
    assert all(int(code) < CONFIG.start_mel_token for codes in result.codes for code in codes)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_all_positions_can_be_used_and_no_more(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], num_beams: int
) -> None:
    model.mel_head.bias[CONFIG.stop_mel_token] -= 1000
    try:
        prefix = model.prefix(*conds, *texts())
        backend = EagerBackend(model)
        params = SamplingParams(num_beams=num_beams, max_mel_tokens=backend.max_codes)
        result = generate(backend, *prefix, params)
        assert all(result.hit_limit)
        assert {len(codes) for codes in result.codes} == {backend.max_codes}
        ids, lengths = texts()
        model.latents(*conds, ids, torch.stack(result.codes), lengths)  # the second pass has room for them too
        with pytest.raises(ConfigError, match=str(backend.max_codes)):
            generate(backend, *prefix, SamplingParams(num_beams=num_beams, max_mel_tokens=backend.max_codes + 1))
    finally:
        model.mel_head.bias[CONFIG.stop_mel_token] += 1000


@pytest.mark.parametrize("num_beams", [1, 3])
def test_stopping_first_gives_no_codes(model: UnifiedVoice, conds: tuple[Tensor, Tensor], num_beams: int) -> None:
    model.mel_head.bias[CONFIG.stop_mel_token] += 1000
    try:
        params = SamplingParams(num_beams=num_beams, do_sample=False, max_mel_tokens=8)
        result = generate(EagerBackend(model), *model.prefix(*conds, *texts()), params)
    finally:
        model.mel_head.bias[CONFIG.stop_mel_token] -= 1000
    assert [len(codes) for codes in result.codes] == [0] * len(texts()[1])
    assert not any(result.hit_limit)


def test_the_caller_can_stop_it(model: UnifiedVoice, conds: tuple[Tensor, Tensor]) -> None:
    asked = []

    def should_stop() -> bool:
        asked.append(True)
        return len(asked) == 3

    with pytest.raises(Cancelled):
        generate(
            EagerBackend(model),
            *model.prefix(*conds, *texts()),
            SamplingParams(max_mel_tokens=20),
            should_stop=should_stop,
        )
    assert len(asked) == 3


SETTLED_SETTINGS = [*SAMPLE_SETTINGS, {"num_beams": 1, "do_sample": False}, {"num_beams": 3, "do_sample": False}]


@pytest.mark.usefixtures("late_stops")
@pytest.mark.parametrize("settings", SETTLED_SETTINGS)
def test_settled_codes_stay(model: UnifiedVoice, conds: tuple[Tensor, Tensor], settings: dict[str, Any]) -> None:
    """In whatever bursts it runs: the result is that of one go, and begins with all that was settled before."""
    params, prefix = SamplingParams(max_mel_tokens=20, **settings), model.prefix(*conds, *texts())
    early = 0
    for seed in range(2):
        expected = generate(EagerBackend(model), *prefix, params, generator=torch.Generator().manual_seed(seed))
        generator = torch.Generator().manual_seed(seed)
        decoding = Decoding(EagerBackend(model), *prefix, params, generator=generator, steps_per_look=3)
        before: list[list[int]] = [[] for _ in expected.codes]
        while not decoding.finished:
            decoding.run(decoding.steps + 2)
            for segment, codes in enumerate(expected.codes):
                settled = decoding.settled(segment).tolist()
                assert settled[: len(before[segment])] == before[segment] and codes.tolist()[: len(settled)] == settled
                if params.num_beams == 1:
                    assert len(settled) == min(decoding.steps, len(codes))
                early += len(settled) - len(before[segment]) if not decoding.finished else 0
                before[segment] = settled
        result = decoding.result()
        assert [codes.tolist() for codes in result.codes] == [codes.tolist() for codes in expected.codes]
        assert result.hit_limit == expected.hit_limit
    assert early > 0


@pytest.mark.usefixtures("late_stops")
@pytest.mark.parametrize("num_beams", [1, 3])
def test_decodings_that_take_turns_on_one_backend(
    model: UnifiedVoice, conds: tuple[Tensor, Tensor], num_beams: int
) -> None:
    take_turns(EagerBackend(model), model, conds, num_beams)


def take_turns(backend: EagerBackend, model: UnifiedVoice, conds: tuple[Tensor, Tensor], num_beams: int) -> None:
    """Each gets what it gets alone, and leaves its generator where it would be."""
    ids, lengths = texts()
    params = SamplingParams(num_beams=num_beams, max_mel_tokens=30)
    jobs = [(model.prefix(*conds, ids[rows], lengths[rows]), seed) for seed, rows in enumerate(([0, 1, 2], [3], [4]))]
    alone, generators, decodings = [], [], []
    for prefix, seed in jobs:
        generators.append(generator := torch.Generator().manual_seed(seed))
        found = generate(EagerBackend(model), *prefix, params, generator=generator)
        alone.append((found, generator.get_state()))
        generator.manual_seed(seed)
    for (prefix, _), generator in zip(jobs, generators, strict=True):
        decodings.append(Decoding(backend, *prefix, params, generator=generator, steps_per_look=4))
        decodings[-1].park()
    while not all(decoding.finished for decoding in decodings):
        for decoding in decodings:
            if not decoding.finished:
                decoding.run(decoding.steps + 3)
                decoding.park()
    for decoding, generator, (expected, state) in zip(decodings, generators, alone, strict=True):
        assert [codes.tolist() for codes in decoding.result().codes] == [codes.tolist() for codes in expected.codes]
        assert torch.equal(generator.get_state(), state)
    assert max(len(codes) for expected, _ in alone for codes in expected.codes) > 6
