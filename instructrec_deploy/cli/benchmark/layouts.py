"""Runtimes, layouts and batch limits of one bundle, measured in turns on this machine.

The way is that of `Predictor`: real texts, tokenized, sorted by length, cut into batches under the
limit of tokens, computed on all lanes. First the runtimes and layouts take turns, then, with the
one that was chosen, the limits. What the program takes by itself stays unless another one is
faster beyond the noise.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np

from instructrec_deploy.cli.benchmark.ratios import throughput_ratio
from instructrec_deploy.core.bundle import Bundle
from instructrec_deploy.core.errors import ConfigError, InstructRecError
from instructrec_deploy.core.request import Request
from instructrec_deploy.runtime.batching import CPU_FIT, BatchingSettings
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.runtime.tuning import Choice, Tried

Say = Callable[[str], None]
N_TEXTS = 256  # of one pass
N_SINGLE = 16  # texts asked alone in a round
PAUSE_S = 0.005  # between two of them: threads that wait busily fall asleep
LIMITS = (0.5, 2.0)  # of the usual limit of a batch's tokens


@dataclass(slots=True)
class Timed:
    """What was measured of one choice."""

    choice: Choice
    passes_s: list[float] = field(default_factory=list)
    single_s: list[float] = field(default_factory=list)


def usual_choice(n_cores: int) -> Choice:
    """What the program takes by itself."""
    n_lanes, n_threads = EngineSettings().layout(n_cores)
    return Choice(
        runtime="onnxruntime",
        n_lanes=n_lanes,
        threads_per_lane=n_threads,
        max_batch_tokens=CPU_FIT["max_batch_tokens"],
    )


def layout_choices(n_cores: int) -> list[Choice]:
    """Each installed runtime with each layout that uses all cores; the usual one first."""
    usual = usual_choice(n_cores)
    layouts = [(n, n_cores // n) for n in range(n_cores, 0, -1) if n_cores % n == 0]
    found = [
        usual.model_copy(update={"n_lanes": n_lanes, "threads_per_lane": n_threads})
        for n_lanes, n_threads in layouts
    ]
    if find_spec("openvino") is not None:
        found += [one.model_copy(update={"runtime": "openvino"}) for one in found]
    return [usual, *(one for one in found if one != usual)]


def limit_choices(choice: Choice) -> list[Choice]:
    """The same with smaller and larger batches; itself first."""
    limits = [round(factor * choice.max_batch_tokens) for factor in LIMITS]
    return [choice, *(choice.model_copy(update={"max_batch_tokens": n}) for n in limits)]


def tune(
    bundle: Bundle,
    texts: Sequence[str],
    *,
    n_cores: int,
    n_rounds: int,
    say: Say,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Choice, list[Tried]]:
    """Measure and choose.

    Args:
        texts: like those that will be asked; repeated where they are few.
        n_cores: what layouts share out.
        n_rounds: of both stages.

    Returns:
        The choice, and all that were tried, the usual one first, ratios to it.

    Raises:
        ConfigError: the bundle would compute on a GPU, where there is nothing to choose.
        InstructRecError: the bundle cannot answer.
    """
    requests = [Request.of(texts[i % len(texts)]) for i in range(N_TEXTS)]
    say("runtimes and layouts")
    layouts = measure(bundle, layout_choices(n_cores), requests, n_rounds, say=say, clock=clock)
    best = choose(layouts)
    say(f"batch limits, with {best.choice.words}")
    limits = measure(bundle, limit_choices(best.choice), requests, n_rounds, say=say, clock=clock)
    tried = judge(layouts)
    at = next(one for one in tried if one.choice == best.choice).ratio
    tried += [
        one.model_copy(
            update={
                "ratio": round(at * one.ratio, 4),
                "interval": tuple(round(at * bound, 4) for bound in one.interval),
            }
        )
        for one in judge(limits)[1:]
    ]
    return choose(limits).choice, tried


def measure(
    bundle: Bundle,
    choices: Sequence[Choice],
    requests: Sequence[Request],
    n_rounds: int,
    *,
    say: Say,
    clock: Callable[[], float],
) -> list[Timed]:
    """Rounds in which every choice answers all requests, then some alone; each begins a round."""
    found = [Timed(choice) for choice in choices]
    with ExitStack() as stack:
        opened = [(timed, stack.enter_context(_open(bundle, timed.choice))) for timed in found]
        for _, predictor in opened:  # memory, candidates, shapes: not counted
            if predictor.pipeline.engine.is_gpu:
                raise ConfigError(
                    "the bundle computes on a GPU here: nothing is chosen among CPU runtimes",
                    hint="set engine.provider to cpu to serve without it",
                )
            _ask(predictor, requests)
        for number in range(n_rounds):
            say(f"round {number + 1} of {n_rounds}")
            begin = number % len(opened)
            for timed, predictor in opened[begin:] + opened[:begin]:
                time.sleep(PAUSE_S)
                begun = clock()
                _ask(predictor, requests)
                timed.passes_s.append(clock() - begun)
                for request in requests[:N_SINGLE]:
                    begun = clock()
                    _ask(predictor, [request])
                    timed.single_s.append(clock() - begun)
    return found


def judge(timed: Sequence[Timed]) -> list[Tried]:
    """Figures, throughput as a multiple of the first one's."""
    base = [np.array(timed[0].passes_s)[:, None]]
    found = []
    for one in timed:
        ratio = throughput_ratio(base, [np.array(one.passes_s)[:, None]])
        found.append(
            Tried(
                choice=one.choice,
                texts_per_s=round(N_TEXTS / statistics.median(one.passes_s), 1),
                single_ms=round(1000 * statistics.median(one.single_s), 3),
                ratio=round(ratio.value, 4),
                interval=(round(ratio.low, 4), round(ratio.high, 4)),
            )
        )
    return found


def choose(timed: Sequence[Timed]) -> Timed:
    """The fastest of those that are faster than the first one beyond the noise; else the first."""
    judged = judge(timed)
    faster = [i for i, one in enumerate(judged) if one.interval[0] > 1.0]
    return timed[max(faster, key=lambda i: judged[i].ratio, default=0)]


def _open(bundle: Bundle, choice: Choice) -> Predictor:
    engine = EngineSettings(
        runtime=choice.runtime, n_lanes=choice.n_lanes, threads_per_lane=choice.threads_per_lane
    )
    batching = BatchingSettings(max_batch_tokens=choice.max_batch_tokens)
    return Predictor(bundle, engine=engine, batching=batching, guard=False)


def _ask(predictor: Predictor, requests: Sequence[Request]) -> None:
    for outcome in predictor.predict_requests(requests):
        if isinstance(outcome, InstructRecError):
            raise outcome
