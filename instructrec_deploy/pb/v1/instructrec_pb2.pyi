from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Candidate(_message.Message):
    __slots__ = ("label", "description", "prior")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PRIOR_FIELD_NUMBER: _ClassVar[int]
    label: str
    description: str
    prior: float
    def __init__(self, label: _Optional[str] = ..., description: _Optional[str] = ..., prior: _Optional[float] = ...) -> None: ...

class Instruction(_message.Message):
    __slots__ = ("text", "candidates", "kind", "task", "decision", "threshold", "none_label")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    NONE_LABEL_FIELD_NUMBER: _ClassVar[int]
    text: str
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    kind: str
    task: str
    decision: str
    threshold: float
    none_label: str
    def __init__(self, text: _Optional[str] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., kind: _Optional[str] = ..., task: _Optional[str] = ..., decision: _Optional[str] = ..., threshold: _Optional[float] = ..., none_label: _Optional[str] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("task", "prepared_id", "instruction")
    TASK_FIELD_NUMBER: _ClassVar[int]
    PREPARED_ID_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    task: str
    prepared_id: str
    instruction: Instruction
    def __init__(self, task: _Optional[str] = ..., prepared_id: _Optional[str] = ..., instruction: _Optional[_Union[Instruction, _Mapping]] = ...) -> None: ...

class Mark(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("text", "questions", "id", "top_k", "text2", "head", "tail", "explain", "model", "model_version")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TEXT2_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    text: str
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    id: str
    top_k: int
    text2: str
    head: Mark
    tail: Mark
    explain: bool
    model: str
    model_version: str
    def __init__(self, text: _Optional[str] = ..., questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ..., id: _Optional[str] = ..., top_k: _Optional[int] = ..., text2: _Optional[str] = ..., head: _Optional[_Union[Mark, _Mapping]] = ..., tail: _Optional[_Union[Mark, _Mapping]] = ..., explain: _Optional[bool] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class LabelScore(_message.Message):
    __slots__ = ("label", "score")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    label: str
    score: float
    def __init__(self, label: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("start", "end", "label", "text", "score")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    label: str
    text: str
    score: float
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., label: _Optional[str] = ..., text: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class Attribution(_message.Message):
    __slots__ = ("start", "end", "score")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    score: float
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("task", "label", "score", "scores", "prepared_id", "spans", "labels", "abstained", "attributions")
    TASK_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PREPARED_ID_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ABSTAINED_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    task: str
    label: str
    score: float
    scores: _containers.RepeatedCompositeFieldContainer[LabelScore]
    prepared_id: str
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    labels: _containers.RepeatedScalarFieldContainer[str]
    abstained: bool
    attributions: _containers.RepeatedCompositeFieldContainer[Attribution]
    def __init__(self, task: _Optional[str] = ..., label: _Optional[str] = ..., score: _Optional[float] = ..., scores: _Optional[_Iterable[_Union[LabelScore, _Mapping]]] = ..., prepared_id: _Optional[str] = ..., spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., labels: _Optional[_Iterable[str]] = ..., abstained: _Optional[bool] = ..., attributions: _Optional[_Iterable[_Union[Attribution, _Mapping]]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("category", "rule", "action", "start", "end", "score", "dry_run_action", "review")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_ACTION_FIELD_NUMBER: _ClassVar[int]
    REVIEW_FIELD_NUMBER: _ClassVar[int]
    category: str
    rule: str
    action: str
    start: int
    end: int
    score: float
    dry_run_action: str
    review: bool
    def __init__(self, category: _Optional[str] = ..., rule: _Optional[str] = ..., action: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., score: _Optional[float] = ..., dry_run_action: _Optional[str] = ..., review: _Optional[bool] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("action", "findings", "policy_version", "direction", "dry_run_action")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_ACTION_FIELD_NUMBER: _ClassVar[int]
    action: str
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    policy_version: str
    direction: str
    dry_run_action: str
    def __init__(self, action: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., policy_version: _Optional[str] = ..., direction: _Optional[str] = ..., dry_run_action: _Optional[str] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue_ms", "tokenize_ms", "inference_ms", "total_ms")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    TOKENIZE_MS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    tokenize_ms: float
    inference_ms: float
    total_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., tokenize_ms: _Optional[float] = ..., inference_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("answers", "id", "text", "truncated", "n_tokens", "verdicts", "timings", "model", "model_version")
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    N_TOKENS_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    id: str
    text: str
    truncated: bool
    n_tokens: int
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    timings: Timings
    model: str
    model_version: str
    def __init__(self, answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ..., id: _Optional[str] = ..., text: _Optional[str] = ..., truncated: _Optional[bool] = ..., n_tokens: _Optional[int] = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class PredictBatchRequest(_message.Message):
    __slots__ = ("requests", "questions", "model", "model_version")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[PredictRequest]
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    model: str
    model_version: str
    def __init__(self, requests: _Optional[_Iterable[_Union[PredictRequest, _Mapping]]] = ..., questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("status", "code", "message", "hint", "retry_after_ms")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    status: int
    code: str
    message: str
    hint: str
    retry_after_ms: int
    def __init__(self, status: _Optional[int] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class PredictBatchItem(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: PredictResponse
    error: ItemError
    def __init__(self, response: _Optional[_Union[PredictResponse, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class PredictBatchResponse(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[PredictBatchItem]
    def __init__(self, items: _Optional[_Iterable[_Union[PredictBatchItem, _Mapping]]] = ...) -> None: ...

class PredictStreamRequest(_message.Message):
    __slots__ = ("requests", "questions", "model", "model_version")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[PredictRequest]
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    model: str
    model_version: str
    def __init__(self, requests: _Optional[_Iterable[_Union[PredictRequest, _Mapping]]] = ..., questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class PredictStreamItem(_message.Message):
    __slots__ = ("response", "error", "number")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    response: PredictResponse
    error: ItemError
    number: int
    def __init__(self, response: _Optional[_Union[PredictResponse, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ..., number: _Optional[int] = ...) -> None: ...

class PredictStreamResponse(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[PredictStreamItem]
    def __init__(self, items: _Optional[_Iterable[_Union[PredictStreamItem, _Mapping]]] = ...) -> None: ...

class PrepareInstructionRequest(_message.Message):
    __slots__ = ("instruction", "task", "model", "model_version")
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    instruction: Instruction
    task: str
    model: str
    model_version: str
    def __init__(self, instruction: _Optional[_Union[Instruction, _Mapping]] = ..., task: _Optional[str] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class PrepareInstructionResponse(_message.Message):
    __slots__ = ("prepared_id", "n_candidates", "cached", "size_bytes")
    PREPARED_ID_FIELD_NUMBER: _ClassVar[int]
    N_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    prepared_id: str
    n_candidates: int
    cached: bool
    size_bytes: int
    def __init__(self, prepared_id: _Optional[str] = ..., n_candidates: _Optional[int] = ..., cached: _Optional[bool] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class GetModelStatusRequest(_message.Message):
    __slots__ = ("with_labels", "model", "model_version")
    WITH_LABELS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    with_labels: bool
    model: str
    model_version: str
    def __init__(self, with_labels: _Optional[bool] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class TaskStatus(_message.Message):
    __slots__ = ("name", "kind", "n_labels", "is_default", "labels")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    N_LABELS_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    n_labels: int
    is_default: bool
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., n_labels: _Optional[int] = ..., is_default: _Optional[bool] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_text_chars", "max_candidates", "max_questions", "max_batch_items", "max_message_bytes", "max_tokens")
    MAX_TEXT_CHARS_FIELD_NUMBER: _ClassVar[int]
    MAX_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    max_text_chars: int
    max_candidates: int
    max_questions: int
    max_batch_items: int
    max_message_bytes: int
    max_tokens: int
    def __init__(self, max_text_chars: _Optional[int] = ..., max_candidates: _Optional[int] = ..., max_questions: _Optional[int] = ..., max_batch_items: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_tokens: _Optional[int] = ...) -> None: ...

class GetModelStatusResponse(_message.Message):
    __slots__ = ("model", "model_version", "kind", "precision", "ready", "tasks", "n_prepared", "prepared_bytes", "uptime_s", "limits", "server_version", "models")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    N_PREPARED_FIELD_NUMBER: _ClassVar[int]
    PREPARED_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    kind: str
    precision: str
    ready: bool
    tasks: _containers.RepeatedCompositeFieldContainer[TaskStatus]
    n_prepared: int
    prepared_bytes: int
    uptime_s: float
    limits: Limits
    server_version: str
    models: _containers.RepeatedCompositeFieldContainer[ServedModel]
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., kind: _Optional[str] = ..., precision: _Optional[str] = ..., ready: _Optional[bool] = ..., tasks: _Optional[_Iterable[_Union[TaskStatus, _Mapping]]] = ..., n_prepared: _Optional[int] = ..., prepared_bytes: _Optional[int] = ..., uptime_s: _Optional[float] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., server_version: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ServedModel, _Mapping]]] = ...) -> None: ...

class ServedModel(_message.Message):
    __slots__ = ("model", "model_version", "release", "state", "code")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    release: str
    state: str
    code: str
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., release: _Optional[str] = ..., state: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class FeedbackSpan(_message.Message):
    __slots__ = ("start", "end", "type")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    type: str
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., type: _Optional[str] = ...) -> None: ...

class FeedbackSpans(_message.Message):
    __slots__ = ("spans",)
    SPANS_FIELD_NUMBER: _ClassVar[int]
    spans: _containers.RepeatedCompositeFieldContainer[FeedbackSpan]
    def __init__(self, spans: _Optional[_Iterable[_Union[FeedbackSpan, _Mapping]]] = ...) -> None: ...

class FeedbackRequest(_message.Message):
    __slots__ = ("text", "task", "labels", "spans", "text2", "head", "tail", "predicted_labels", "predicted_spans", "model", "model_version", "lang", "source")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    TEXT2_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_LABELS_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_SPANS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    LANG_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    text: str
    task: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    spans: FeedbackSpans
    text2: str
    head: FeedbackSpan
    tail: FeedbackSpan
    predicted_labels: _containers.RepeatedScalarFieldContainer[str]
    predicted_spans: FeedbackSpans
    model: str
    model_version: str
    lang: str
    source: str
    def __init__(self, text: _Optional[str] = ..., task: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., spans: _Optional[_Union[FeedbackSpans, _Mapping]] = ..., text2: _Optional[str] = ..., head: _Optional[_Union[FeedbackSpan, _Mapping]] = ..., tail: _Optional[_Union[FeedbackSpan, _Mapping]] = ..., predicted_labels: _Optional[_Iterable[str]] = ..., predicted_spans: _Optional[_Union[FeedbackSpans, _Mapping]] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., lang: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class FeedbackResponse(_message.Message):
    __slots__ = ("id", "outcome", "text")
    ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    id: str
    outcome: str
    text: str
    def __init__(self, id: _Optional[str] = ..., outcome: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class SwapModelRequest(_message.Message):
    __slots__ = ("model", "rollback")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    model: str
    rollback: bool
    def __init__(self, model: _Optional[str] = ..., rollback: _Optional[bool] = ...) -> None: ...

class SwapModelResponse(_message.Message):
    __slots__ = ("model", "model_version", "previous_version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: str
    previous_version: str
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[str] = ..., previous_version: _Optional[str] = ...) -> None: ...
