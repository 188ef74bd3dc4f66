"""Several hypotheses a segment, competing by the sum of their scores: beam search and beam sampling (spec 7.7).

The hypotheses are not stored as such. Each step leaves a trace of what was chosen and which beam it continues, and at
the end the best hypothesis is read backwards from it.
"""

from __future__ import annotations

import dataclasses
from itertools import takewhile

import torch
from torch import Tensor

from indextts.config import SamplingParams
from indextts.decoding.backend import rows_of_beams
from indextts.decoding.logits import process_logits
from indextts.decoding.state import Hypothesis, Search, initial_history, race


@dataclasses.dataclass
class BeamSearch(Search):
    """Attributes: as of `Search`, and

    continued: ``[S, B]`` the beams that ``codes`` continue.
    seen: ``[S, B, V]``, true for every code in the history of a beam.
    running: ``[S, B]`` sums of the scores of the beams.
    finished: ``[S, B]`` scores of the best hypotheses with a stop code, best first, minus infinity where none is yet.
    finished_entry: ``[S, B]`` where they ended: the step times B, plus the rank among the candidates.
    trace: ``[S, limit, 3, B]`` what each step chose: the codes that the running beams took, the beams that these
        continue, and the beams that the first B candidates continue, among which are those with a stop code.
    """

    continued: Tensor
    seen: Tensor
    running: Tensor
    finished: Tensor
    finished_entry: Tensor
    trace: Tensor

    @staticmethod
    def start(logits: Tensor, params: SamplingParams, start_code: int, stop_code: int, limit: int) -> BeamSearch:
        """Before the first code, of which ``logits [S, V]`` are known."""
        segments, beams = len(logits), params.num_beams
        counter = torch.zeros(segments, dtype=torch.long, device=logits.device)
        per_beam = counter[:, None].repeat(1, beams)
        running = torch.zeros(segments, beams, device=logits.device)
        running[:, 1:] = -1e9  # all beams start alike: let the first one bring forth the others
        return BeamSearch(
            params,
            start_code,
            stop_code,
            step=counter,
            done=counter.bool(),
            done_after=counter.clone(),
            undefined=counter.bool(),
            codes=per_beam,
            noise=torch.ones_like(logits[:, : None if params.do_sample else 0]).repeat(1, beams),
            continued=per_beam.clone(),
            seen=initial_history(logits, start_code)[:, None].repeat(1, beams, 1),
            running=running,
            finished=torch.full_like(running, float("-inf")),
            finished_entry=per_beam.clone(),
            trace=per_beam[:, None, None].repeat(1, limit, 3, 1),
        )

    @property
    def parents(self) -> Tensor:
        return self.continued

    def choose(self, logits: Tensor) -> None:
        """See `Search.choose`."""
        self.give_up_where_undefined(logits)
        beams, vocabulary = self.params.num_beams, logits.shape[-1]
        best, index = self.candidates(logits)
        parent, code = index // vocabulary, index % vocabulary
        stops = code == self.stop_code
        first_parents = parent[:, :beams]
        by_length = best / (self.step[:, None] + 1).float().pow(self.params.length_penalty)

        # Only a stop code among the first candidates ends its hypothesis. Equal scores: the older stays.
        ended = by_length[:, :beams].masked_fill(~stops[:, :beams] | self.done[:, None], float("-inf"))
        pool, order = torch.cat((self.finished, ended), dim=1).sort(dim=1, descending=True, stable=True)
        entry = self.step[:, None] * beams + torch.arange(beams, device=code.device)
        self.finished.copy_(pool[:, :beams])
        self.finished_entry.copy_(torch.cat((self.finished_entry, entry), dim=1).gather(1, order[:, :beams]))

        # The others go on: the first candidates without a stop code, of which there are always enough.
        going_on = stops.byte().argsort(dim=1, stable=True)[:, :beams]
        best, code, parent = (x.gather(1, going_on) for x in (best, code, parent))
        self.running.copy_(best)
        self.codes.copy_(code)
        self.continued.copy_(parent)
        self.seen.copy_(rows_of_beams(self.seen, parent).scatter_(2, code[..., None], True))
        self.trace.index_copy_(1, self.step[:1], torch.stack((code, parent, first_parents), dim=1)[:, None])
        self.done_after += ~self.done
        # An empty place holds minus infinity, and is never as good as the best candidate.
        self.done |= pool[:, beams - 1] >= by_length[:, 0]
        self.step += 1

    def candidates(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `Search.candidates`. There are twice as many as beams."""
        scores = process_logits(logits, self.seen, self.params, banned_code=self.start_code)
        totals = (scores + self.running[..., None]).flatten(1)
        count = 2 * self.params.num_beams
        if not self.params.do_sample:
            best, index = totals.topk(count, dim=1)
            return best, index
        index = race(totals.softmax(-1), self.noise).topk(count, dim=1).indices
        best, order = totals.gather(1, index).sort(dim=1, descending=True)
        return best, index.gather(1, order)

    def settled(self, row: int) -> Tensor:
        """See `Search.settled`. What all hypotheses have in common that may yet win, the running and the finished."""
        if self.done[row]:
            return self.hypotheses([row])[0].codes
        steps, beams = int(self.step[row]), self.params.num_beams
        trace = self.trace[row, :steps].tolist()
        finished = self.finished_entry[row][self.finished[row].isfinite()].tolist()
        running = range(steps * beams, (steps + 1) * beams)
        histories = [_codes(trace, entry) for entry in (*finished, *running)]
        common = takewhile(lambda codes: len(set(codes)) == 1, zip(*histories, strict=False))
        return torch.tensor([codes[0] for codes in common], dtype=torch.long, device=self.trace.device)

    def hypotheses(self, rows: list[int]) -> list[Hypothesis]:
        """See `Search.hypotheses`. Running beams compete where the segment is not done."""
        steps = int(self.step[0])
        trace = self.trace[:, :steps].tolist()
        done, finished, entries = self.done.tolist(), self.finished.tolist(), self.finished_entry.tolist()
        unfinished = (self.running / steps**self.params.length_penalty).tolist()
        results = []
        for row in rows:
            # Equal scores: the one added last wins. Running beams are added after all finished ones.
            ranking = list(zip(finished[row], entries[row], strict=True))
            if not done[row]:
                ranking += [(score, steps * len(entries[row]) + beam) for beam, score in enumerate(unfinished[row])]
            score, entry = max(ranking)
            codes = torch.tensor(_codes(trace[row], entry), dtype=torch.long, device=self.trace.device)
            results.append(Hypothesis(codes, len(codes) == steps, score))
        return results


def _codes(trace: list[list[list[int]]], entry: int) -> list[int]:
    """The codes of a hypothesis, read backwards from where it ended.

    Args:
        trace: ``[steps, 3, B]``, see `BeamSearch`.
        entry: As in ``finished_entry``; of a running beam, the number of steps times B, plus the beam.
    """
    step, beam = divmod(entry, len(trace[0][0]))
    if step < len(trace):  # it ended with a stop code, as a candidate
        beam = trace[step][2][beam]
    codes = []
    for chosen, continued, _ in reversed(trace[:step]):
        codes.append(chosen[beam])
        beam = continued[beam]
    return codes[::-1]
