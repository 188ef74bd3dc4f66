"""Drawing codes: sampling with one beam, beam search and beam sampling with several (spec 7.7).

All segments of a batch advance together, and everything that a step decides stays on the device. The host
only looks in every few steps, to see whether all segments are finished and whether the caller wants to
stop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from indextts.config import SamplingParams
from indextts.decoding.backend import DecodeBackend
from indextts.decoding.logits import process_logits
from indextts.errors import Cancelled, ConfigError

PREFIX_HISTORY_CODE = 1
"""The history that the repetition penalty looks at holds this code in place of the prefix (spec quirk 17)."""

DEVICE_STEPS_PER_LOOK = 8
"""Steps between two looks of the host where a look makes the device wait."""


@dataclass(frozen=True)
class Generation:
    """The codes of a batch of segments.

    Attributes:
        codes: One int64 tensor ``[M]`` a segment, without the stop code; M can be 0.
        hit_limit: Whether a segment was cut off by ``max_mel_tokens`` before it came to its stop code.
        scores: Sum of the processed scores over ``length ** length_penalty``; None with one beam.
    """

    codes: list[Tensor]
    hit_limit: list[bool]
    scores: list[float] | None = None


def generate(
    backend: DecodeBackend,
    embeddings: Tensor,
    mask: Tensor,
    params: SamplingParams,
    *,
    generator: torch.Generator | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Generation:
    """Continue every prefix until its stop code.

    Args:
        backend: The model to decode from.
        embeddings: Prefixes ``[S, P, D]``, padded on the left.
        mask: ``[S, P]``, true where a prefix is real.
        params: How to draw.
        generator: Source of randomness on the device of the model; None means torch's default one.
        should_stop: Asked every few steps.

    Raises:
        ConfigError: ``max_mel_tokens`` exceeds the model's position table.
        Cancelled: ``should_stop`` said so.
    """
    if params.max_mel_tokens > backend.max_codes:
        raise ConfigError(
            f"max_mel_tokens is {params.max_mel_tokens}, but this model has positions for {backend.max_codes}"
        )
    search = _sample if params.num_beams == 1 else _beam_search
    pulse = _Pulse(should_stop, embeddings.device)
    with torch.inference_mode():
        logits = backend.prefill(embeddings, mask, num_beams=params.num_beams, max_codes=params.max_mel_tokens)
        result = search(backend, logits.float(), params, generator, pulse)
    # Cloned outside, for tensors made in inference mode cannot take part in training.
    return Generation([codes.clone() for codes in result.codes], result.hit_limit, result.scores)


class _Pulse:
    """The host's look at the device, every few steps."""

    def __init__(self, should_stop: Callable[[], bool] | None, device: torch.device) -> None:
        self.should_stop = should_stop
        self.every = 1 if device.type == "cpu" else DEVICE_STEPS_PER_LOOK
        self.steps = 0

    def all_done(self, done: Tensor) -> bool:
        """Whether every segment is finished, as far as has been looked."""
        self.steps += 1
        if self.steps % self.every:
            return False
        if self.should_stop is not None and self.should_stop():
            raise Cancelled("the synthesis was stopped on request")
        return bool(done.all())


def _sample(
    backend: DecodeBackend,
    logits: Tensor,
    params: SamplingParams,
    generator: torch.Generator | None,
    pulse: _Pulse,
) -> Generation:
    """One hypothesis a segment: draw from the scores, or take the best of them."""
    segments, limit = len(logits), params.max_mel_tokens
    codes = logits.new_full((segments, limit), backend.stop_code, dtype=torch.long)
    done = logits.new_zeros(segments, dtype=torch.bool)
    seen = _initial_history(logits, backend.start_code)
    for step in range(limit):
        scores = process_logits(logits, seen, params, banned_code=backend.start_code)
        if params.do_sample:
            code = torch.multinomial(scores.softmax(-1), 1, generator=generator)
        else:
            code = scores.argmax(-1, keepdim=True)
        code = code.masked_fill(done[:, None], backend.stop_code)
        codes[:, step : step + 1] = code
        done |= code[:, 0] == backend.stop_code
        if step + 1 == limit or pulse.all_done(done):
            break
        seen.scatter_(1, code, True)
        logits = backend.step(code)[:, 0].float()
    lengths = (codes != backend.stop_code).sum(1).tolist()
    return Generation(
        [row[:length] for row, length in zip(codes, lengths, strict=True)], [not d for d in done.tolist()]
    )


@dataclass
class _Trace:
    """What each step of the beam search chose, to read the hypotheses back from.

    A step adds one ``[S, B]`` to each list: the codes that the running beams took, the beams that these
    continue, and the beams that the first B candidates continue, among which are those with a stop code.
    """

    codes: list[Tensor]
    parents: list[Tensor]
    candidate_parents: list[Tensor]


def _beam_search(
    backend: DecodeBackend,
    logits: Tensor,
    params: SamplingParams,
    generator: torch.Generator | None,
    pulse: _Pulse,
) -> Generation:
    """Several hypotheses a segment, competing by the sum of their scores."""
    segments, beams, vocabulary = len(logits), params.num_beams, logits.shape[-1]
    seen = _initial_history(logits, backend.start_code)[:, None].expand(-1, beams, -1)
    logits = logits[:, None].expand(-1, beams, -1)
    running = logits.new_zeros(segments, beams)
    running[:, 1:] = -1e9  # all beams start alike: let the first one bring forth the others
    finished = logits.new_full((segments, beams), float("-inf"))
    finished_entry = torch.zeros_like(finished, dtype=torch.long)  # step * beams + rank among the candidates
    done = torch.zeros(segments, dtype=torch.bool, device=logits.device)
    rank = torch.arange(beams, device=logits.device)
    row = torch.arange(segments, device=logits.device)[:, None]
    trace = _Trace([], [], [])
    for step in range(params.max_mel_tokens):
        scores = process_logits(logits, seen, params, banned_code=backend.start_code)
        totals = (scores + running[..., None]).flatten(1)
        best, index = _candidates(totals, 2 * beams, params.do_sample, generator)
        parent, code = index // vocabulary, index % vocabulary
        stops = code == backend.stop_code
        normalizer = (step + 1) ** params.length_penalty

        # Only a stop code among the first candidates ends its hypothesis. Equal scores: the older stays.
        ended = (best / normalizer)[:, :beams].masked_fill(~stops[:, :beams] | done[:, None], float("-inf"))
        pool, order = torch.cat((finished, ended), dim=1).sort(dim=1, descending=True, stable=True)
        entries = torch.cat((finished_entry, (step * beams + rank).expand(segments, -1)), dim=1)
        finished, finished_entry = pool[:, :beams], entries.gather(1, order[:, :beams])

        # The others go on: the first candidates without a stop code, of which there are always enough.
        going_on = stops.long().argsort(dim=1, stable=True)[:, :beams]
        running, code, continued = (x.gather(1, going_on) for x in (best, code, parent))
        trace.codes.append(code)
        trace.parents.append(continued)
        trace.candidate_parents.append(parent[:, :beams])

        done = done | ((finished[:, -1] > float("-inf")) & (finished[:, -1] >= best[:, 0] / normalizer))
        if step + 1 == params.max_mel_tokens or pulse.all_done(done):
            break
        seen = seen[row, continued].scatter(2, code[..., None], True)
        logits = backend.step(code, continued).float()
    return _best_hypotheses(trace, running, finished, finished_entry, done, params)


def _candidates(
    totals: Tensor, count: int, do_sample: bool, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Drawn (or the best) entries of ``totals [S, B * V]``: values and indices ``[S, count]``, best first."""
    if not do_sample:
        best, index = totals.topk(count, dim=1)
        return best, index
    index = torch.multinomial(totals.softmax(-1), count, generator=generator)
    best, order = totals.gather(1, index).sort(dim=1, descending=True)
    return best, index.gather(1, order)


def _best_hypotheses(
    trace: _Trace,
    running: Tensor,
    finished: Tensor,
    finished_entry: Tensor,
    done: Tensor,
    params: SamplingParams,
) -> Generation:
    """Pick the best hypothesis of each segment; running ones compete where the segment was not done."""
    steps, beams = len(trace.codes), params.num_beams
    codes, parents, candidate_parents = (
        torch.stack(steps_of).cpu().numpy() for steps_of in (trace.codes, trace.parents, trace.candidate_parents)
    )
    unfinished = running / steps**params.length_penalty
    result = Generation([], [], [])
    assert result.scores is not None
    for segment in range(len(running)):
        # Equal scores: the one added last wins. Running beams are added after all finished ones.
        ranking = list(zip(finished[segment].tolist(), finished_entry[segment].tolist(), strict=True))
        if not bool(done[segment]):
            ranking += [(score, steps * beams + beam) for beam, score in enumerate(unfinished[segment].tolist())]
        score, entry = max(ranking)
        step, beam = divmod(entry, beams)
        hit_limit = step == steps
        if not hit_limit:
            beam = candidate_parents[step, segment, beam]
        hypothesis = []
        for earlier in range(step - 1, -1, -1):
            hypothesis.append(int(codes[earlier, segment, beam]))
            beam = parents[earlier, segment, beam]
        result.codes.append(torch.tensor(hypothesis[::-1], dtype=torch.long, device=running.device))
        result.hit_limit.append(hit_limit)
        result.scores.append(score)
    return result


def _initial_history(logits: Tensor, start_code: int) -> Tensor:
    """Which codes the history of each row holds before the first is drawn, ``[S, V]``."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    seen[:, [PREFIX_HISTORY_CODE, start_code]] = True
    return seen
