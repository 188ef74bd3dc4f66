"""One hypothesis a segment: draw from the scores, or take the best of them (spec 7.7)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from indextts.config import SamplingParams
from indextts.decoding.logits import process_logits
from indextts.decoding.state import Hypothesis, Search, initial_history, race


@dataclasses.dataclass
class Sampling(Search):
    """Attributes: as of `Search`, with B = 1, and

    seen: ``[S, V]``, true for every code in the history of a segment.
    history: ``[S, limit]`` the codes chosen so far, stop codes behind them.
    """

    seen: Tensor
    history: Tensor

    @staticmethod
    def start(logits: Tensor, params: SamplingParams, start_code: int, stop_code: int, limit: int) -> Sampling:
        """Before the first code, of which ``logits [S, V]`` are known."""
        segments = len(logits)
        counter = torch.zeros(segments, dtype=torch.long, device=logits.device)
        return Sampling(
            params,
            start_code,
            stop_code,
            step=counter,
            done=counter.bool(),
            done_after=counter.clone(),
            undefined=counter.bool(),
            codes=counter[:, None].clone(),
            noise=torch.ones_like(logits[:, : None if params.do_sample else 0]),
            seen=initial_history(logits, start_code),
            history=torch.full((segments, limit), stop_code, device=logits.device),
        )

    @property
    def parents(self) -> None:
        return None

    def candidates(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See `Search.candidates`. There is one."""
        scores = process_logits(logits[:, 0], self.seen, self.params, banned_code=self.start_code)
        racing = race(scores.softmax(-1), self.noise) if self.params.do_sample else scores
        code = racing.argmax(-1, keepdim=True)
        return scores.gather(1, code), code

    def choose(self, logits: Tensor) -> None:
        """See `Search.choose`."""
        self.give_up_where_undefined(logits)
        _, code = self.candidates(logits)
        code = code.masked_fill(self.done[:, None], self.stop_code)
        self.codes.copy_(code)
        self.history.index_copy_(1, self.step[:1], code)
        self.seen.scatter_(1, code, True)
        self.done_after += ~self.done
        self.done |= code[:, 0] == self.stop_code
        self.step += 1

    def settled(self, row: int) -> Tensor:
        """See `Search.settled`. A code that was drawn stays."""
        drawn = self.history[row, : int(self.step[row])]
        return drawn[drawn != self.stop_code]

    def hypotheses(self, rows: list[int]) -> list[Hypothesis]:
        """See `Search.hypotheses`."""
        lengths, done = (self.history != self.stop_code).sum(1).tolist(), self.done.tolist()
        return [Hypothesis(self.history[row, : lengths[row]].clone(), not done[row]) for row in rows]
