"""Search for the wording of an instruction that answers validation rows best.

Half of the rows choose, the other half confirm: the gain that is reported is that of the one chosen
wording on rows that had no say in the choice. On the choosing half, proposals compete on growing
parts of the rows, and the weaker half drops out each time (successive halving, arXiv:1502.07943).

Shapes: N rows, C labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from instructrec_deploy.core.errors import SearchImpossible
from instructrec_deploy.evaluation.figures import Floats, Interval
from instructrec_deploy.evaluation.gains import Ints, Metric, metric_of, paired_gain
from instructrec_deploy.evaluation.wording_proposals import Proposal, Proposer

# proposals, rows [n] -> for each proposal the labels' scores [n, C]
ScoreWordings = Callable[[Sequence[Proposal], Ints], Sequence[Floats]]

MIN_ROWS = 20  # fewer could not tell any two wordings apart
FIRST_ROWS = 40  # of the first comparison: a worse half is seen on so few
FIRST_SHARE = 0.5  # of the budget goes to seeds and the grammar, the rest to edits of the best
N_ROUNDS = 4  # of edits, about
N_PARENTS = 6
N_REPORTED = 12  # finalists that are confirmed, too, for the report


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How much to try and what counts."""

    budget: int = 200  # wordings read, the default among them
    metric: Metric = "accuracy"
    seed: int = 0


@dataclass(slots=True, eq=False)
class Tried:
    """A proposal and what is known of it: its answers on the rows it has seen so far."""

    proposal: Proposal
    guesses: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    log_likelihoods: Floats = field(default_factory=lambda: np.empty(0))
    score: float = 0.0  # the metric on the rows seen
    gain: float = 0.0  # over the default, on the same rows
    confirmed: Interval | None = None  # the gain on the confirm half

    @property
    def n_rows(self) -> int:
        """Rows it was tried on."""
        return len(self.guesses)

    @property
    def rank(self) -> tuple[float, float]:
        """What it is judged by: the metric, then how likely it made the right labels."""
        return (self.score, float(self.log_likelihoods.mean()))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        plain: dict[str, Any] = {
            "instruction": self.proposal.text,
            "style": self.proposal.style,
            "origin": self.proposal.origin,
            "n": self.n_rows,
            "score": round(self.score, 6),
            "gain": round(self.gain, 6),
            "mean_log_likelihood": round(self.rank[1], 6),
        }
        if self.confirmed is not None:
            plain["confirm_gain"] = round(self.confirmed.value, 6)
            plain["confirm_gain_interval"] = _pair(self.confirmed)
        return plain


@dataclass(frozen=True, slots=True)
class SearchReport:
    """What a search found. `default` and `best` may be the same."""

    metric: Metric
    budget: int
    default: Tried
    best: Tried
    tried: tuple[Tried, ...]  # best first; those on more rows before those on fewer
    n_search: int
    n_confirm: int
    confirm_default: float  # the metric on the confirm half
    confirm_best: float
    gain: Interval  # of best over default, on the confirm half
    seconds: float

    @property
    def is_confirmed(self) -> bool:
        """Whether the whole interval of the gain lies above zero."""
        return self.gain.low > 0

    @property
    def chosen(self) -> Tried:
        """What to use: the best wording, or the default where the confirm half saw no gain."""
        return self.best if self.gain.value > 0 else self.default

    def companions(self, n: int) -> list[str]:
        """The chosen wording and up to n - 1 others that are no worse than the default with it.

        They put the labels as the chosen one does, and were tried on the whole choosing half.
        """
        alike = [
            t.proposal.text
            for t in self.tried
            if t.proposal.words == self.chosen.proposal.words
            and t.n_rows == self.n_search
            and t.gain >= 0
        ]
        return list(dict.fromkeys([self.chosen.proposal.text, *alike]))[:n]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        return {
            "metric": self.metric,
            "budget": self.budget,
            "n_tried": len(self.tried),
            "n_search": self.n_search,
            "n_confirm": self.n_confirm,
            "seconds": round(self.seconds, 2),
            "default": self.default.to_dict(),
            "best": self.best.to_dict(),
            "confirm": {
                "default": round(self.confirm_default, 6),
                "best": round(self.confirm_best, 6),
                "gain": round(self.gain.value, 6),
                "gain_interval": _pair(self.gain),
                "is_confirmed": self.is_confirmed,
            },
            "styles": style_gains(self.tried),
            "wordings": [tried.to_dict() for tried in self.tried],
        }


def search_wordings(
    targets: Sequence[int] | Ints,
    proposer: Proposer,
    score: ScoreWordings,
    settings: SearchSettings = SearchSettings(),
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> SearchReport:
    """Find the wording that answers best.

    Args:
        targets: [N] the right label's number of every validation row.
        proposer: makes the wordings to try.
        score: the labels' scores of rows, after the task's temperature.

    Raises:
        SearchImpossible: too few rows, or all of one label.
    """
    begun = clock()
    right = np.asarray(targets, np.int64)
    if len(right) < MIN_ROWS or len(np.unique(right)) < 2:
        raise SearchImpossible(
            f"{len(right)} usable rows of {len(np.unique(right))} labels",
            hint=f"a search needs {MIN_ROWS} labelled rows of two labels or more",
        )
    choosing, confirming = split_rows(right, seed=settings.seed)
    race = _Race(right, choosing, score, settings.metric)
    first = proposer.first(max(2, int(settings.budget * FIRST_SHARE)))[: settings.budget]
    default = race.start(first[0])
    race.run(first[1:])
    while race.n_tried < settings.budget:
        step = max(1, int(settings.budget * (1 - FIRST_SHARE) / N_ROUNDS))
        n = min(step, settings.budget - race.n_tried)
        parents = [tried.proposal for tried in race.finalists()[:N_PARENTS]]
        edits = proposer.edits(parents, n)
        if not edits:
            break
        race.run(edits)
    best = race.finalists()[0]
    reported = [t for t in race.finalists()[:N_REPORTED] if t is not default]
    found = _confirm([default, *reported], right, confirming, score, settings)
    before, after = found[0], found[[default, *reported].index(best)]
    truth = right[confirming]
    return SearchReport(
        metric=settings.metric,
        budget=settings.budget,
        default=default,
        best=best,
        tried=tuple(race.ranking()),
        n_search=len(choosing),
        n_confirm=len(confirming),
        confirm_default=metric_of(truth, before, settings.metric),
        confirm_best=metric_of(truth, after, settings.metric),
        gain=paired_gain(truth, before, after, metric=settings.metric, seed=settings.seed),
        seconds=clock() - begun,
    )


def split_rows(right: Ints, *, seed: int) -> tuple[Ints, Ints]:
    """Two halves with equal shares of every label; any beginning of each has equal shares, too.

    Returns:
        Row numbers that choose and row numbers that confirm.
    """
    rng = np.random.default_rng(seed)
    halves: tuple[list[tuple[float, int]], list[tuple[float, int]]] = ([], [])
    for turn, label in enumerate(np.unique(right)):
        rows = rng.permutation(np.flatnonzero(right == label))
        for place, row in enumerate(rows):
            at = (place // 2 + rng.random()) / len(rows)
            halves[(place + turn) % 2].append((at, int(row)))
    choosing, confirming = (np.array([r for _, r in sorted(h)], np.int64) for h in halves)
    return choosing, confirming


def style_gains(tried: Sequence[Tried]) -> list[dict[str, Any]]:
    """What each way of putting the labels gained on average, the best first."""
    gains: dict[str, list[float]] = {}
    for one in tried:
        gains.setdefault(one.proposal.style, []).append(one.gain)
    rows = [
        {"style": style, "n": len(found), "mean_gain": round(sum(found) / len(found), 6)}
        for style, found in gains.items()
    ]
    return sorted(rows, key=lambda row: -float(row["mean_gain"]))


class _Race:
    """Proposals that compete on the rows of the choosing half."""

    def __init__(self, right: Ints, rows: Ints, score: ScoreWordings, metric: Metric) -> None:
        self._right = right
        self._rows = rows
        self._score = score
        self._metric = metric
        self._all: list[Tried] = []
        self._stages = [len(rows)]
        while self._stages[0] > 2 * FIRST_ROWS:
            self._stages.insert(0, -(-self._stages[0] // 2))

    @property
    def n_tried(self) -> int:
        """Proposals read so far."""
        return len(self._all)

    def start(self, default: Proposal) -> Tried:
        """Try the default on every row: the others are measured against it."""
        self._default = Tried(default)
        self._all.append(self._default)
        self._advance([self._default], len(self._rows))
        return self._default

    def run(self, proposals: Sequence[Proposal]) -> None:
        """Let proposals compete; half of them reach each next stage."""
        alive = [Tried(proposal) for proposal in proposals]
        self._all += alive
        for n_rows in self._stages:
            if not alive:
                return
            self._advance(alive, n_rows)
            alive.sort(key=lambda tried: tried.rank, reverse=True)
            alive = alive[: -(-len(alive) // 2)]

    def finalists(self) -> list[Tried]:
        """Those tried on every row, best first; of equals the earlier."""
        done = [tried for tried in self._all if tried.n_rows == len(self._rows)]
        return sorted(done, key=lambda tried: tried.rank, reverse=True)

    def ranking(self) -> list[Tried]:
        """All of them: by rows seen, then by rank."""
        return sorted(self._all, key=lambda tried: (tried.n_rows, *tried.rank), reverse=True)

    def _advance(self, alive: Sequence[Tried], n_rows: int) -> None:
        rows = self._rows[alive[0].n_rows : n_rows]
        seen = self._right[self._rows[:n_rows]]
        scores = self._score([tried.proposal for tried in alive], rows)
        for tried, found in zip(alive, scores, strict=True):
            guesses, likelihoods = _read(found, self._right[rows])
            tried.guesses = np.concatenate([tried.guesses, guesses])
            tried.log_likelihoods = np.concatenate([tried.log_likelihoods, likelihoods])
            tried.score = metric_of(seen, tried.guesses, self._metric)
            default = metric_of(seen, self._default.guesses[:n_rows], self._metric)
            tried.gain = tried.score - default


def _read(scores: Floats, right: Ints) -> tuple[Ints, Floats]:
    """[n, C] scores -> [n] guesses and [n] log-likelihoods of the right labels."""
    exact = np.asarray(scores, np.float64)
    exact = exact - exact.max(axis=1, keepdims=True)
    own = exact[np.arange(len(right)), right]
    return exact.argmax(axis=1), own - np.log(np.exp(exact).sum(axis=1))


def _confirm(
    tried: Sequence[Tried],
    right: Ints,
    rows: Ints,
    score: ScoreWordings,
    settings: SearchSettings,
) -> list[Ints]:
    """Answers on the confirm half; each one's gain over the first goes into it."""
    scores = score([one.proposal for one in tried], rows)
    guesses = [_read(found, right[rows])[0] for found in scores]
    for one, own in zip(tried[1:], guesses[1:], strict=True):
        one.confirmed = paired_gain(
            right[rows], guesses[0], own, metric=settings.metric, seed=settings.seed
        )
    return guesses


def _pair(interval: Interval) -> list[float]:
    return [round(interval.low, 6), round(interval.high, 6)]
