"""Rankings with an instruction encoder: candidates that come with the row, and their popularity.

Shapes: B rows, U different candidates of a batch, C candidates of a row, H hidden size,
W wordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from instructrec_deploy.core.instruction import MAX_PRIOR, Candidate
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.evaluation.ranking import rank_relevant, ranking_metrics
from instructrec_training.objectives.base import CandidateReader, Wordings
from instructrec_training.rows import Row

CLOSED = -1e4  # logit of what a row is not asked about; minus infinity times 0 would be no number
HEADLINE = "ndcg@10"
BASELINE_FIGURES = ("hr@10", "ndcg@10")
MAX_ITERATIONS = 100


class RankObjective:
    """The wanted ones among a row's candidates.

    score = scaled cosine (+ fusion) + prior_weight * prior, as a bundle scores; the weight is
    learned. In training a row is also held against the other rows' candidates that nobody wanted:
    they are read anyway, and were drawn as its own were. What the row's user is known to have
    chosen is left out. Other rows' wanted items are not used: they are popular by choice of the
    data, and would teach to mistrust popularity.
    """

    def __init__(
        self,
        spec: TaskSpec,
        reader: CandidateReader,
        wordings: Wordings,
        prior_weight: nn.Parameter,
    ) -> None:
        self.spec = spec
        self.prior_weight = prior_weight
        self._reader = reader
        self._wordings = wordings
        self._kept: dict[str, Tensor] = {}  # vectors by words, while the weights stand still

    @property
    def headline(self) -> str:
        return HEADLINE

    def loss(self, rows: Sequence[Row]) -> Tensor:
        """Cross-entropy of the wanted candidates among the row's own and the others' unwanted."""
        batch = _Batch(rows)
        ids, mask = self._reader.batch(rows)
        states, pooled = self._reader.model.encode(ids, mask)
        vectors = self._read(batch.candidates)
        kind = self.spec.kind
        scores = self._reader.model.score(states, mask, pooled, vectors, kind=kind).float()
        logits = scores + self.prior_weight * batch.priors.to(scores.device)
        closed = ~batch.is_open.to(scores.device)
        wanted = batch.wanted.to(scores.device)
        return functional.cross_entropy(logits.masked_fill(closed, CLOSED), wanted)

    def outputs(self, rows: Sequence[Row]) -> list[Tensor]:
        """[2, C] of each row: what the text says of its candidates, and their priors."""
        ids, mask = self._reader.batch(rows)
        states, pooled = self._reader.model.encode(ids, mask)
        found = []
        wanted = {c.words: c for row in rows for c in row.candidates if c.words not in self._kept}
        if wanted:
            vectors = self._read(list(wanted.values()))
            self._kept |= dict(zip(wanted, vectors, strict=True))
        for i, row in enumerate(rows):
            vectors = torch.stack([self._kept[c.words] for c in row.candidates])
            one = slice(i, i + 1)
            scores = self._reader.model.score(
                states[one], mask[one], pooled[one], vectors, kind=self.spec.kind
            )
            priors = torch.tensor([c.prior for c in row.candidates])
            found.append(torch.stack([scores[0].float().cpu(), priors]))
        return found

    def outputs_under(self, wordings: Sequence[str], rows: Sequence[Row]) -> list[Tensor]:
        """[W, 2, C] of each row; the candidates are read anew under every wording."""
        found = []
        for wording in wordings:
            self._kept = {}
            with self._wordings.asking(wording):
                found.append(self.outputs(rows))
        self._kept = {}
        return [torch.stack(own) for own in zip(*found, strict=True)]

    def hits(self, rows: Sequence[Row], outputs: Sequence[Tensor]) -> list[bool] | None:
        """Nothing: a wanted candidate may stand near the top."""
        return None

    def measure(
        self, rows: Sequence[Row], outputs: Sequence[Tensor], *, n_resamples: int = 1_000
    ) -> dict[str, Any]:
        """Figures of the ranking, and beside them what text and popularity reach alone."""
        weight = float(self.prior_weight.detach())
        found = _metrics(rows, [o[0] + weight * o[1] for o in outputs], n_resamples)
        if any(bool(o[1].any()) for o in outputs):
            for place, name in enumerate(("text_only", "popularity_only")):
                alone = _metrics(rows, [o[place] for o in outputs], 0)
                found |= {f"{name}_{figure}": alone[figure] for figure in BASELINE_FIGURES}
            found["prior_weight"] = round(weight, 4)
        return found

    def start(self, rows: Sequence[Row], outputs: Sequence[Tensor]) -> None:
        """Start the weight of the priors where it fits the untuned model best."""
        _, weight = fit_ranking(outputs, [row.labels for row in rows], is_scaled=False)
        with torch.no_grad():
            self.prior_weight.fill_(weight)

    def calibrate(self, rows: Sequence[Row], outputs: Sequence[Tensor]) -> dict[str, Any]:
        """Temperature and weight of the priors, together the likeliest on validation rows."""
        temperature, weight = fit_ranking(outputs, [row.labels for row in rows], is_scaled=True)
        with torch.no_grad():
            self.prior_weight.fill_(weight)
        return {"temperature": temperature, "prior_weight": weight}

    def weights_change(self) -> None:
        self._kept = {}

    def _read(self, candidates: Sequence[Candidate]) -> Tensor:
        """Vectors [U, H], L2-normalized; those of like length are read together."""
        wording = self._wordings.pick(is_training=self._reader.model.training)
        order = sorted(range(len(candidates)), key=lambda i: len(candidates[i].words))
        vectors = self._reader.vectors(wording, [candidates[i].words for i in order])
        place = torch.empty(len(order), dtype=torch.int64)
        place[order] = torch.arange(len(order))
        return vectors[place.to(vectors.device)]


class _Batch:
    """The different candidates of some rows: which row is asked about which, and their priors."""

    def __init__(self, rows: Sequence[Row]) -> None:
        strange = {
            c.label: c for row in rows for i, c in enumerate(row.candidates) if i not in row.labels
        }
        own = {c.label: c for row in rows for c in row.candidates}
        self.candidates = list((own | strange).values())
        place = {candidate.label: i for i, candidate in enumerate(self.candidates)}
        shape = (len(rows), len(self.candidates))
        self.priors = torch.tensor([c.prior for c in self.candidates]).repeat(len(rows), 1)
        self.wanted = torch.zeros(shape)
        is_strange = torch.tensor([c.label in strange for c in self.candidates])
        self.is_open = is_strange.repeat(len(rows), 1)
        for i, row in enumerate(rows):
            for label in row.seen & place.keys():
                self.is_open[i, place[label]] = False
            for candidate in row.candidates:
                self.is_open[i, place[candidate.label]] = True
                self.priors[i, place[candidate.label]] = candidate.prior
            for position in row.labels:
                column = place[row.candidates[position].label]
                self.wanted[i, column] = 1.0 / len(row.labels)


def fit_ranking(
    outputs: Sequence[Tensor], wanted: Sequence[Sequence[int]], *, is_scaled: bool
) -> tuple[float, float]:
    """Temperature and weight of the priors with the least negative log likelihood.

    Args:
        outputs: [2, C] of each row, C its own: scores of the text, priors.
        wanted: positions of each row's wanted candidates.
        is_scaled: fit the temperature too; else it is 1.
    """
    text, priors = (
        torch.nn.utils.rnn.pad_sequence([o[k] for o in outputs], True, pad).double()
        for k, pad in ((0, CLOSED), (1, 0.0))
    )
    targets = torch.zeros_like(text)
    for i, places in enumerate(wanted):
        targets[i, list(places)] = 1.0 / len(places)
    found = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # log slope; weight
    optimizer = torch.optim.LBFGS([found], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        slope = found[0].exp() if is_scaled else torch.ones((), dtype=torch.float64)
        loss = functional.cross_entropy(slope * text + found[1] * priors, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    slope, weight = (float(value) for value in found.detach())
    temperature = min(max(torch.tensor(-slope).exp().item(), 0.05), 20.0) if is_scaled else 1.0
    return round(temperature, 4), round(min(max(weight * temperature, -MAX_PRIOR), MAX_PRIOR), 4)


def _metrics(rows: Sequence[Row], scores: Sequence[Tensor], n_resamples: int) -> dict[str, Any]:
    ranked = []
    for row, values in zip(rows, scores, strict=True):
        labels = [candidate.label for candidate in row.candidates]
        found = dict(zip(labels, values.tolist(), strict=True))
        ranked.append(rank_relevant(found, {labels[i] for i in row.labels}))
    return ranking_metrics(ranked, n_resamples=n_resamples).to_dict()
