"""Every error this project raises on purpose: code, hint, gRPC status and exit code in one place.

InstructRecError
├── RequestError      INVALID_ARGUMENT     exit 2   the caller sent something unusable
├── NotFound          NOT_FOUND            exit 3   a task, an instruction or a model is not here
├── Overloaded        RESOURCE_EXHAUSTED   exit 4   try again later
├── DeadlinePassed    DEADLINE_EXCEEDED    exit 4   the caller's time was up before an answer
├── Unavailable       UNAVAILABLE          exit 4   the server cannot be reached or is draining
├── Denied            PERMISSION_DENIED    exit 5   policy or access control says no
│   └── Unauthenticated  UNAUTHENTICATED   exit 5   the caller did not show who it is
├── BundleError       FAILED_PRECONDITION  exit 6   a bundle is missing or damaged
├── ConfigError       FAILED_PRECONDITION  exit 2   a recipe, policy, option or setting is wrong
├── MissingExtra      FAILED_PRECONDITION  exit 7   an optional package is not installed
└── InternalError     INTERNAL             exit 1   our fault; the caller gets an id

Messages never hold a caller's text: they name the field, the limit and what to do.
"""

from __future__ import annotations

from typing import ClassVar, Literal

# What was full: the queue, the time before the caller's deadline, that before the server's target,
# the caller's quota. A label of the metrics.
OverloadReason = Literal["queue", "deadline", "target", "rate"]


class InstructRecError(Exception):
    """Base of all errors. `str(error)` is the message; `hint` says what to do about it."""

    code: ClassVar[str] = "IR-1000"
    grpc_status: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RequestError(InstructRecError):
    """The request itself is unusable; sending it again will not help."""

    code = "IR-1100"
    grpc_status = "INVALID_ARGUMENT"
    exit_code = 2


class TextEmpty(RequestError):
    """A text is empty or holds white space only."""

    code = "IR-1101"


class TextTooLong(RequestError):
    """A text has more characters than the limit."""

    code = "IR-1102"


class TextUndecodable(RequestError):
    """The request's bytes are not a valid message or not valid UTF-8."""

    code = "IR-1103"


class LabelMissing(RequestError):
    """A task needs candidates and got none."""

    code = "IR-1104"


class LabelRepeated(RequestError):
    """The same candidate was given twice."""

    code = "IR-1105"


class TooManyLabels(RequestError):
    """More candidates than the limit."""

    code = "IR-1106"


class LabelUnknown(RequestError):
    """A candidate that a model with fixed labels does not know."""

    code = "IR-1107"


class InstructionMissing(RequestError):
    """Candidates without an instruction, and no task to take it from."""

    code = "IR-1108"


class RowInvalid(RequestError):
    """A line of a data file is not usable."""

    code = "IR-1109"


class TextBlocked(RequestError):
    """Reserved: a caller asked for an exception in place of a blocked verdict."""

    code = "IR-1110"


class DecisionInvalid(RequestError):
    """How a request wants scores decided contradicts itself or its candidates."""

    code = "IR-1130"


class LabelsAlike(LabelRepeated):
    """Two candidates read the same but for case, width and white space."""

    code = "IR-1131"


class InstructionUnreadable(InstructionMissing):
    """The instruction holds no word: only punctuation, symbols or emoji."""

    code = "IR-1132"


class NoneLabelTaken(DecisionInvalid):
    """The label for "none of these" is one of the candidates, or reads like one."""

    code = "IR-1133"


class FeedbackInvalid(RequestError):
    """A correction is unusable: no answer in it, a span outside the text, a field too long."""

    code = "IR-1140"


class FeedbackRefused(RequestError):
    """The safety policy blocks a correction's text, or masking would cut into what it marks."""

    code = "IR-1141"


class TensorInvalid(RequestError):
    """A tensor or a parameter of an inference request is unknown, or does not fit its shape."""

    code = "IR-1150"


class MarkInvalid(RequestError):
    """A mark is no span of the text, or is empty."""

    code = "IR-1120"


class MarkMissing(RequestError):
    """A head without a tail, or a tail without a head."""

    code = "IR-1121"


class PriorInvalid(RequestError):
    """A candidate's prior is no number, or too large for a logarithm of anything."""

    code = "IR-1122"


class HistoryInvalid(RequestError):
    """A history is no list of items that have a title."""

    code = "IR-1123"


class NotFound(InstructRecError):
    """Something named by the caller is not here."""

    code = "IR-1200"
    grpc_status = "NOT_FOUND"
    exit_code = 3


class TaskUnknown(NotFound):
    """The bundle has no task of that name."""

    code = "IR-1201"


class PreparedUnknown(NotFound):
    """No prepared instruction of that id is cached; it was evicted or never prepared here."""

    code = "IR-1202"


class FileMissing(NotFound):
    """A file or folder named by the caller does not exist."""

    code = "IR-1203"


class CaseUnknown(NotFound):
    """The review queue holds no case of that id."""

    code = "IR-1642"


class ModelUnknown(NotFound):
    """No model of that name, or no such version of it, is served."""

    code = "IR-1204"


class Overloaded(InstructRecError):
    """Refused at once, by `reason`; try again after `retry_after_ms`."""

    code = "IR-1300"
    grpc_status = "RESOURCE_EXHAUSTED"
    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        retry_after_ms: int = 100,
        reason: OverloadReason = "queue",
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_ms = retry_after_ms
        self.reason = reason


class FeedbackFull(Overloaded):
    """The feedback store has reached its limit; nothing more is kept until there is room."""

    code = "IR-1142"


class ReviewFull(Overloaded):
    """The review queue has reached its limit; nothing more is kept until there is room."""

    code = "IR-1643"


class DeadlinePassed(InstructRecError):
    """The caller's deadline passed before the work was done."""

    code = "IR-1301"
    grpc_status = "DEADLINE_EXCEEDED"
    exit_code = 4


class Unavailable(InstructRecError):
    """The server cannot be reached, is starting, or is draining."""

    code = "IR-1302"
    grpc_status = "UNAVAILABLE"
    exit_code = 4


class Denied(InstructRecError):
    """Access control or policy refuses."""

    code = "IR-1400"
    grpc_status = "PERMISSION_DENIED"
    exit_code = 5


class Unauthenticated(Denied):
    """A call without a valid API key."""

    code = "IR-1401"
    grpc_status = "UNAUTHENTICATED"


class BundleError(InstructRecError):
    """A bundle is missing a file, damaged, of another format, or wrong on this machine."""

    code = "IR-1500"
    grpc_status = "FAILED_PRECONDITION"
    exit_code = 6


class ParityFailed(BundleError):
    """An exported graph does not answer as its checkpoint does."""

    code = "IR-1501"


class GoldenFailed(BundleError):
    """On this machine the bundle does not answer its golden pairs as stated."""

    code = "IR-1502"


class PlanMissed(BundleError):
    """A stage of an export plan loses more than the plan allows, or the bundle is too large."""

    code = "IR-1503"


class RollbackImpossible(BundleError):
    """There is no version to go back to, or it does not lie where it was."""

    code = "IR-1504"


class GeneratorNotServed(BundleError):
    """The bundle's model writes text (seq2seq or causal); what was asked wants labels or spans."""

    code = "IR-1505"


class ModelDamaged(BundleError):
    """A fetched pretrained model is not the file this program knows."""

    code = "IR-1510"


class WeightsRefused(BundleError):
    """A model's weights are a pickle, which may run code when it is read."""

    code = "IR-1511"


class ConfigError(InstructRecError):
    """A configuration file or option is wrong."""

    code = "IR-1600"
    grpc_status = "FAILED_PRECONDITION"
    exit_code = 2


class PortInUse(ConfigError):
    """The address cannot be bound."""

    code = "IR-1601"


class UsageInvalid(ConfigError):
    """The command line is wrong: an unknown verb or option, an argument missing or too many."""

    code = "IR-1602"


class FileUnusable(ConfigError):
    """A file or folder cannot be read or written: no permission, no room, not what it should be."""

    code = "IR-1603"


class WorkersCannot(ConfigError):
    """Several worker processes cannot do that, or cannot be had on this system."""

    code = "IR-1604"


class PromotionRefused(ConfigError):
    """A retuned model lost on an old test, or nothing shows that it did not."""

    code = "IR-1610"
    exit_code = 8  # of its own: the run is there, and a nightly job must tell it from a mistake


class RegressionFound(ConfigError):
    """A comparison of models is slower, worse or larger than an earlier one, beyond the noise."""

    code = "IR-1650"
    exit_code = 8  # as a refused promotion: the figures are there, and say no


class FeedbackOff(ConfigError):
    """The server keeps no feedback."""

    code = "IR-1611"


class FeedbackUnusable(ConfigError):
    """A file is no feedback store, is damaged, or cannot be written."""

    code = "IR-1612"


class FamilyUnknown(ConfigError):
    """No family of wordings has that name, or it is not written in that language."""

    code = "IR-1620"


class WordingsInvalid(ConfigError):
    """A file of wordings is not usable."""

    code = "IR-1621"


class SearchImpossible(ConfigError):
    """There is nothing a search for wordings could find: fixed labels, or too few rows."""

    code = "IR-1622"


class TeacherUnfit(ConfigError):
    """A teacher cannot score the labels of the task it is to teach."""

    code = "IR-1630"


class SearchInvalid(ConfigError):
    """A search space is empty, names an unknown key, or belongs to another search."""

    code = "IR-1631"


class TrainingDiverged(ConfigError):
    """The loss of a training step is no number any more."""

    code = "IR-1632"


class ReviewUnusable(ConfigError):
    """A file is no review queue, is damaged, or cannot be written."""

    code = "IR-1641"


class SafetyKeyMissing(ConfigError):
    """The safety policy hashes or encrypts values, and there is no key, or it is too short."""

    code = "IR-1640"


class MissingExtra(InstructRecError):
    """An optional package is needed and not installed."""

    code = "IR-1700"
    grpc_status = "FAILED_PRECONDITION"
    exit_code = 7


class InternalError(InstructRecError):
    """Our fault. The message holds an id that stands in the log beside the traceback."""

    code = "IR-1900"
