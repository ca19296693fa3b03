"""The sessions of one bundle: token ids in, states, vectors or logits out.

A *lane* is what one worker thread computes on. On CPU a batch in each of two threads, with one
thread inside an operator, answers more texts a second than one batch with two threads inside
(1.7 to 2.0 times one thread against 1.2 to 1.75). Lanes of one thread share their sessions: they
compute in their callers' threads, so nothing but the memory arena's lock is between them (2 to 6 %
slower than sessions of their own, for half the memory). Lanes of several threads do not share, as
they would wait for each other's threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from instructrec_deploy.core.bundle import (
    ENCODER_FILE,
    FUSION_FILE,
    PREPARE_FILE,
    READER_FILE,
    Bundle,
)
from instructrec_deploy.core.errors import (
    BundleError,
    ConfigError,
    GeneratorNotServed,
    InternalError,
    MissingExtra,
)
from instructrec_deploy.core.settings import Section
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.runtime import openvino_session, providers
from instructrec_deploy.runtime.tuning import Choice, find_tuning
from instructrec_deploy.tasks.base import Floats, Ints

RuntimeName = Literal["onnxruntime", "openvino", "auto"]
MAX_SINGLE_LANES = 8  # more cores than that are worth threads inside an operator, for long texts
MAX_LANES = 1024  # more than any machine has cores is a slip of the pen
WIDE_LANES = 4  # then each lane has weights of its own: about 30 MB with MiniLM int8


# How to open a graph, the encoder, and how many sessions of each graph the lanes want.
Opened = tuple[Callable[[str], Any], Any, int]


class EngineSettings(Section):
    """How the engine uses the machine; 0 means "as fits the machine"."""

    # What runs the graphs; openvino computes on CPUs; auto: as `tune-engine` measured here.
    runtime: RuntimeName = "onnxruntime"
    provider: providers.Provider = "auto"  # of onnxruntime
    n_lanes: int = Field(
        default=0, ge=0, le=MAX_LANES
    )  # batches computed at a time, each in a worker thread
    threads_per_lane: int = Field(default=0, ge=0, le=MAX_LANES)  # threads inside one operator
    n_cores: int = Field(default=0, ge=0, le=MAX_LANES)  # that lanes and threads share out
    # Lanes of one thread share their sessions: half the memory for a few percent of the speed.
    use_sharing: bool = True
    use_spinning: bool = False  # waiting threads burn their core; only for a lone lane

    def layout(self, n_available: int, *, is_gpu: bool = False) -> tuple[int, int]:
        """(lanes, threads of each): a lane a core on small machines, else four that share them out.

        `n_available`: cores of the machine that may be used; `n_cores` goes before it.

        A GPU runs one batch at a time, but a second lane fills it while the first one's results
        are being read.
        """
        n_cores = self.n_cores or n_available
        auto_lanes = 2 if is_gpu else n_cores if n_cores <= MAX_SINGLE_LANES else WIDE_LANES
        n_lanes = self.n_lanes or auto_lanes
        return n_lanes, self.threads_per_lane or max(1, n_cores // n_lanes)

    def resolved(self, choice: Choice | None) -> EngineSettings:
        """The same with its runtime known: "auto" is what was chosen, else onnxruntime.

        The layout is taken over where none of it is set here.
        """
        if self.runtime != "auto":
            return self
        if choice is None:
            return self.model_copy(update={"runtime": "onnxruntime"})
        changes: dict[str, Any] = {"runtime": choice.runtime}
        if not (self.n_lanes or self.threads_per_lane or self.n_cores):
            changes |= {"n_lanes": choice.n_lanes, "threads_per_lane": choice.threads_per_lane}
        return self.model_copy(update=changes)


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the encoder says about a batch. Arrays the model does not give are None."""

    mask: Ints  # [B, T]
    token_states: Floats | None = None  # [B, T, H]
    pooled: Floats | None = None  # [B, H], L2-normalized
    logits: Floats | None = None  # of a head: [B, C] for texts, [B, T, G] for tokens
    lower_states: Floats | None = None  # [B, T, H], what the span reader starts from

    def rows(self, rows: Sequence[int]) -> Encoding:
        """The same for some of the texts; itself where they are all of them, in order."""
        if list(rows) == list(range(len(self.mask))):
            return self
        index = np.asarray(rows, np.int64)
        picked = [
            None if array is None else array[index]
            for array in (self.token_states, self.pooled, self.logits, self.lower_states)
        ]
        return Encoding(self.mask[index], *picked)


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Ints, Ints]:
    """Token ids of different lengths -> ids [B, T] and mask [B, T], both int64."""
    n_tokens = max(len(row) for row in rows)
    ids = np.full((len(rows), n_tokens), pad_id, np.int64)
    mask = np.zeros((len(rows), n_tokens), np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def refuse_writer(bundle: Bundle) -> None:
    """Let pass what gives labels or spans.

    Raises:
        GeneratorNotServed: the bundle writes text.
    """
    model = bundle.manifest.model
    if model.generation is not None:
        raise GeneratorNotServed(
            f"bundle {bundle.manifest.name!r} writes text (kind {model.kind}): it gives no "
            "labels and no spans, and is not served",
            hint="instructrec_deploy.runtime.writer.Writer runs it in your own process",
        )


class Engine:
    """The graphs of one bundle, open. Safe to share between threads.

    Raises:
        BundleError: a graph is missing or cannot be opened.
        GeneratorNotServed: the model writes text: see `runtime/writer.py`.
        MissingExtra: onnxruntime, or openvino or CUDA where asked for, is missing.
        ConfigError: a GPU is asked of openvino, or a measurement of `tune-engine` is damaged.
    """

    def __init__(self, bundle: Bundle, settings: EngineSettings = EngineSettings()) -> None:
        refuse_writer(bundle)
        model = self.model = bundle.manifest.model
        self.is_fixed = model.kind != "instruction-encoder"
        choice = _tuned_choice(bundle, settings)
        settings = settings.resolved(choice)
        self.runtime = settings.runtime
        self.batch_tokens = choice.max_batch_tokens if choice else 0  # measured; 0: nothing was
        if settings.runtime == "openvino":
            open_graph, first, n_own = self._with_openvino(bundle, settings)
        else:
            open_graph, first, n_own = self._with_onnxruntime(bundle, settings)
        self._encoders = [first, *(open_graph(ENCODER_FILE) for _ in range(n_own - 1))]
        self._fusions: list[Any] = []
        self._prepare: Any = None
        self._readers = [open_graph(READER_FILE) for _ in range(n_own if model.has_reader else 0)]
        if model.has_fusion:
            self._fusions = [open_graph(FUSION_FILE) for _ in range(n_own)]
            self._prepare = open_graph(PREPARE_FILE)
        self._check_outputs()

    def _with_onnxruntime(self, bundle: Bundle, settings: EngineSettings) -> Opened:
        ort = providers.load_onnxruntime()
        chosen = providers.choose_providers(settings.provider, ort.get_available_providers())
        self._errors = providers.engine_errors()

        def opener(n_threads: int) -> Callable[[str], Any]:
            return lambda name: providers.open_session(
                bundle.path(name),
                providers=chosen,
                n_threads=1 if name == PREPARE_FILE else n_threads,
                use_spinning=settings.use_spinning,
                is_half=bundle.manifest.model.precision == "fp16",
            )

        is_gpu = providers.CUDA in chosen
        n_lanes, n_threads = settings.layout(providers.available_cores(), is_gpu=is_gpu)
        try:
            first = opener(n_threads)(ENCODER_FILE)
        except MissingExtra:
            if settings.provider != "auto":
                raise
            chosen = [providers.CPU]  # CUDA is installed but there is no device
            n_lanes, n_threads = settings.layout(providers.available_cores())
            first = opener(n_threads)(ENCODER_FILE)
        self.provider = "cuda" if providers.CUDA in chosen else "cpu"
        self.n_lanes, self.threads_per_lane = n_lanes, n_threads
        # On a GPU the threads only wait: there, too, one set of sessions does for all lanes.
        is_shared = settings.use_sharing and (n_threads == 1 or self.is_gpu)
        return opener(n_threads), first, 1 if is_shared else n_lanes

    def _with_openvino(self, bundle: Bundle, settings: EngineSettings) -> Opened:
        """Its streams share their weights and nothing else: one session does for all lanes."""
        if settings.provider in providers.GPU_PROVIDERS:
            raise ConfigError(
                "engine.runtime openvino does not compute on CUDA or TensorRT",
                hint="set engine.runtime to onnxruntime, or engine.provider to cpu",
            )
        n_lanes, n_threads = settings.layout(providers.available_cores())
        self._errors = openvino_session.ERRORS
        self.provider = "cpu"
        self.n_lanes, self.threads_per_lane = n_lanes, n_threads

        def open_graph(name: str) -> Any:
            return openvino_session.open_session(
                bundle.path(name), n_threads=n_threads, n_streams=n_lanes
            )

        return open_graph, open_graph(ENCODER_FILE), 1

    @property
    def is_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self.provider == "cuda"

    def encode(
        self,
        ids: Ints,
        mask: Ints,
        *,
        lane: int = 0,
        use_states: bool = False,
        use_lower: bool = False,
    ) -> Encoding:
        """Read a padded batch.

        Args:
            ids, mask: [B, T] int64.
            lane: the lane of the calling thread.
            use_states: give the token states even where scoring does not need them.
            use_lower: give also what the span reader starts from.

        Raises:
            InternalError: the graph failed on this batch, or the model finds no spans.
        """
        feed = {"input_ids": ids, "attention_mask": mask}
        session = self._encoders[lane % len(self._encoders)]
        if self.is_fixed:  # a head upon the encoder: nothing of a question comes to it
            return Encoding(mask, logits=self._run(session, ["logits"], feed)[0])
        if use_lower:
            names = ["token_states", "pooled", "lower_states"]
            states, pooled, lower = self._run(session, names, feed)
            return Encoding(mask, states, pooled, lower_states=lower)
        if not (use_states or self.model.has_fusion):
            return Encoding(mask, pooled=self._run(session, ["pooled"], feed)[0])
        states, pooled = self._run(session, ["token_states", "pooled"], feed)
        return Encoding(mask, states, pooled)

    def shrink(self) -> None:
        """Give back the memory that the batches so far took; the next ones take what they need.

        ONNX Runtime keeps what its largest batch took. Warming reads all labels of a task at once,
        more than most batches of callers.

        Raises:
            InternalError: the graph failed.
        """
        if self.runtime != "onnxruntime" or self.is_gpu:
            return
        options = providers.shrinking_run()
        ids = np.zeros((1, 1), np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        for session in self._encoders:
            self._run(session, [session.get_outputs()[0].name], feed, options)

    def prepare_vectors(
        self, vectors: Floats, kind: TaskKind
    ) -> tuple[Floats | None, Floats | None]:
        """[C, H] -> what fusion needs of the candidates alone, twice [C, H].

        None where the model has no fusion, or none for questions of that kind.

        Raises:
            InternalError: the graph failed.
        """
        if self._prepare is None or kind not in self.model.fused_kinds:
            return None, None
        names = ["fusion_queries", "fusion_values"]
        queries, values = self._run(self._prepare, names, {"candidate_vectors": vectors})
        return queries, values

    def score(
        self,
        encoding: Encoding,
        vectors: Floats,
        fusion_queries: Floats | None = None,
        fusion_values: Floats | None = None,
        *,
        lane: int = 0,
    ) -> Floats:
        """Logits [B, C] of every candidate for every text, before the task's temperature.

        Args:
            encoding: from `encode`, of an instruction encoder.
            vectors, fusion_queries, fusion_values: [C, H] each, of a prepared instruction.

        Raises:
            InternalError: the graph failed, or the encoding is of a model with fixed labels.
        """
        if encoding.pooled is None:
            raise InternalError("a model with fixed labels has no candidates to score")
        if not self._fusions or fusion_queries is None:
            return np.asarray(self.model.score_scale * (encoding.pooled @ vectors.T))
        feed = {
            "token_states": encoding.token_states,
            "attention_mask": encoding.mask,
            "pooled": encoding.pooled,
            "candidate_vectors": vectors,
            "fusion_queries": fusion_queries,
            "fusion_values": fusion_values,
        }
        return np.asarray(self._run(self._fusions[lane % len(self._fusions)], ["scores"], feed)[0])

    def read_spans(
        self, encoding: Encoding, vectors: Floats, memory: Floats, *, lane: int = 0
    ) -> Floats:
        """Logits [B, T, C, 3] of every token for every candidate: first, last, inside.

        Args:
            encoding: from `encode` with `use_lower`.
            vectors: [C, H] of a prepared instruction.
            memory: [K, H], the states of its candidates' own words.

        Raises:
            InternalError: the graph failed, or the model finds no spans.
        """
        if not self._readers:
            raise InternalError("the model finds no spans")
        near = np.ones((1, len(memory)), np.int64)
        if not len(memory):  # nothing sought has a readable word; the graph wants a row
            memory, near = np.zeros((1, vectors.shape[1]), np.float32), np.zeros((1, 1), np.int64)
        feed = {
            "lower_states": encoding.lower_states,
            "attention_mask": encoding.mask,
            "memory": memory[None],
            "memory_mask": near,
            "candidate_vectors": vectors[None],
        }
        session = self._readers[lane % len(self._readers)]
        return np.asarray(self._run(session, ["span_scores"], feed)[0])

    def close(self) -> None:
        """Give the sessions' memory back. Nothing may be run afterwards."""
        self._encoders, self._fusions, self._readers, self._prepare = [], [], [], None

    def _run(
        self, session: Any, outputs: list[str], feed: dict[str, Any], *options: Any
    ) -> list[Any]:
        try:
            found: list[Any] = session.run(outputs, feed, *options)
        except self._errors as error:
            # The runtime's own words may quote a value of the input: they stay out of the message.
            raise InternalError(
                f"the graph failed ({type(error).__name__})", hint="export the bundle again"
            ) from error
        return found

    def _check_outputs(self) -> None:
        """Refuse at load what would fail at the first request."""
        wanted = {"logits"} if self.is_fixed else {"token_states", "pooled"}
        if self.model.has_reader:
            wanted.add("lower_states")
        found = {output.name for output in self._encoders[0].get_outputs()}
        if not wanted <= found:
            raise BundleError(
                f"{ENCODER_FILE} gives {sorted(found)}, wanted {sorted(wanted)}",
                hint="export the bundle again with this version",
            )


def _tuned_choice(bundle: Bundle, settings: EngineSettings) -> Choice | None:
    """What was measured for a bundle here; CPUs alone are measured."""
    if settings.runtime != "auto" or settings.provider in providers.GPU_PROVIDERS:
        return None
    found = find_tuning(bundle)
    return found.choice if found else None
