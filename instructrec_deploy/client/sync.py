"""The blocking client.

with Client() as client:
    print(client.predict("I lost my card").label)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grpc

from instructrec_deploy.client.calls import (
    DEFAULT_ADDRESS,
    DEFAULT_KEEPALIVE_S,
    DEFAULT_TIMEOUT_S,
    DEFAULT_TOP_K,
    Numbered,
    Results,
    RetryPolicy,
    addressed,
    build_batch,
    build_question,
    build_request,
    channel_options,
    read_failure,
)
from instructrec_deploy.client.feedback import build_feedback
from instructrec_deploy.client.security import Security
from instructrec_deploy.client.streaming import TextStream, read_stream
from instructrec_deploy.client.tracing import with_trace
from instructrec_deploy.core.closing import Closing
from instructrec_deploy.core.decision import Decision
from instructrec_deploy.core.feedback import Feedback, Receipt
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.request import MarkLike, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.core.status import ModelChange, ModelStatus, PreparedInfo
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb
from instructrec_deploy.wire.answers import (
    read_batch_results,
    read_change,
    read_prediction,
    read_prepared,
    read_status,
)
from instructrec_deploy.wire.feedback import read_receipt, write_feedback
from instructrec_deploy.wire.requests import (
    method_path,
    write_batch_request,
    write_prepare_request,
    write_request,
)


class Client(Closing):
    """A connection to a server. Threads may share it. Errors are `InstructRecError`s."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy = RetryPolicy(),
        max_message_bytes: int = 64 << 20,
        keepalive_s: float = DEFAULT_KEEPALIVE_S,
        compression: str = "none",
        security: Security = Security(),
        model: str = "",
        model_version: str = "",
        channel: grpc.Channel | None = None,
    ) -> None:
        """Connect on first use.

        Args:
            address: host:port.
            timeout_s: of each call, retries included.
            retry: when a call is sent again.
            max_message_bytes: of one answer.
            keepalive_s: while a call is open, ping a silent server so often; 0: never.
            compression: of what is sent: none, gzip or deflate.
            security: TLS and API key.
            model, model_version: which one is asked; "": the only or the default one, the newest.
            channel: one of your own (interceptors) in place of one by these arguments.

        Raises:
            ConfigError: certificates that cannot be read, or an option that there is not.
        """
        self.address = address
        self._timeout_s = timeout_s
        self._model = {"model": model, "model_version": model_version}
        self._metadata = security.metadata()
        options = channel_options(
            address, retry, max_message_bytes, keepalive_s=keepalive_s, compression=compression
        )
        self._channel = channel or security.open_channel(grpc, address, options)
        self._calls: dict[str, Any] = {}

    def predict(
        self,
        text: str,
        *,
        instruction: str | Instruction | None = None,
        candidates: Iterable[str | Candidate] | None = None,
        task: str = "",
        prepared_id: str = "",
        top_k: int = DEFAULT_TOP_K,
        id: str = "",
        decision: str | Decision = "",
        threshold: float | None = None,
        none_label: str = "",
        text2: str = "",
        head: MarkLike | None = None,
        tail: MarkLike | None = None,
        explain: bool = False,
        timeout_s: float | None = None,
    ) -> Prediction:
        """Ask one question about one text: by instruction and candidates, task, or prepared id.

        Args:
            decision: "one" of the candidates or "any" of them; "" as the task says.
            threshold: any: least probability of a chosen label; one: least fit of the answer.
            none_label: what the answer is called where nothing fits.
            text2: the second text of a pair.
            head, tail: two parts of the text whose relation is asked for: (start, end) in code
                points.
            explain: say which words moved the answer (`Answer.attributions`).

        Raises:
            InstructRecError: what the server raised, or Unavailable, DeadlinePassed.
        """
        request = build_request(
            text,
            instruction=instruction,
            candidates=candidates,
            task=task,
            prepared_id=prepared_id,
            top_k=top_k,
            id=id,
            decision=decision,
            threshold=threshold,
            none_label=none_label,
            text2=text2,
            head=head,
            tail=tail,
            explain=explain,
        )
        return self.predict_request(request, timeout_s=timeout_s)

    def predict_request(self, request: Request, *, timeout_s: float | None = None) -> Prediction:
        """Ask several questions about one text."""
        data = addressed(write_request(request), **self._model)
        answer = self._call("Predict", data, timeout_s)
        return read_prediction(pb.PredictResponse.FromString(answer))

    def predict_batch(
        self, texts: Sequence[str | Request], *, timeout_s: float | None = None, **question: Any
    ) -> Results:
        """Ask about many texts in one message; an item is its prediction or its error.

        Args:
            texts: texts that share one question, or ready requests.
            timeout_s: of the whole batch.
            question: instruction, candidates, task, prepared_id, top_k, decision, threshold,
                none_label, text2, as for `predict`.
        """
        requests = build_batch(texts, **question)
        if not requests:
            return []
        data = addressed(write_batch_request(requests), **self._model)
        answer = self._call("PredictBatch", data, timeout_s)
        return read_batch_results(pb.PredictBatchResponse.FromString(answer))

    def predict_stream(
        self,
        texts: Iterable[str | Request],
        *,
        timeout_s: float | None = None,
        together: int = 0,
        **question: Any,
    ) -> Iterator[Numbered]:
        """Ask about texts without end on one call; each answer comes as soon as it is there.

        Every item is the number of its text, from 0, and its prediction or its error. Texts are
        taken from the iterable as fast as the server reads; where it has to wait, so have they.

        Args:
            texts: texts that share one question, or ready requests.
            timeout_s: of the whole call; None: none.
            together: texts of one message; 0: 16 of a list, 1 of what comes one by one.
            question: instruction, candidates, task, prepared_id, top_k, text2, as for `predict`.

        Raises:
            Unavailable: the server goes; texts whose number has not come were not read by it.
            InstructRecError: what ends the call as a whole.
        """
        sent = TextStream(texts, question, self._model, together=together)
        start: Any = self._channel.stream_stream(method_path("PredictStream"))
        call = start(iter(sent), timeout=timeout_s, metadata=with_trace(self._metadata))
        try:
            for data in call:
                yield from read_stream(data)
        except grpc.RpcError as error:
            sent.check()
            raise read_failure(error, self.address) from None
        finally:
            call.cancel()
        sent.check()

    def prepare(
        self,
        instruction: str | Instruction | None = None,
        candidates: Iterable[str | Candidate] | None = None,
        *,
        task: str = "",
        decision: str | Decision = "",
        threshold: float | None = None,
        none_label: str = "",
        timeout_s: float | None = None,
    ) -> PreparedInfo:
        """Compile an instruction, or a task of the bundle; use its `prepared_id` afterwards."""
        question = build_question(
            instruction=instruction,
            candidates=candidates,
            task=task,
            decision=decision,
            threshold=threshold,
            none_label=none_label,
        )
        data = addressed(write_prepare_request(question), **self._model)
        answer = self._call("PrepareInstruction", data, timeout_s)
        return read_prepared(pb.PrepareInstructionResponse.FromString(answer))

    def status(self, *, with_labels: bool = False, timeout_s: float | None = None) -> ModelStatus:
        """What the server serves."""
        data = addressed(pb.GetModelStatusRequest(with_labels=with_labels), **self._model)
        answer = self._call("GetModelStatus", data, timeout_s)
        return read_status(pb.GetModelStatusResponse.FromString(answer))

    def swap(
        self, model: str = "", *, rollback: bool = False, timeout_s: float | None = None
    ) -> ModelChange:
        """Have the server serve the newest version that it finds, or the one before. For admins.

        Raises:
            BundleError: that version cannot be served; the present one goes on.
            RollbackImpossible, ModelUnknown: as their names say.
        """
        data = pb.SwapModelRequest(model=model, rollback=rollback).SerializeToString()
        answer = self._call("SwapModel", data, timeout_s)
        return read_change(pb.SwapModelResponse.FromString(answer))

    def feedback(
        self,
        text: str | Feedback,
        label: str | Iterable[str] = (),
        *,
        timeout_s: float | None = None,
        **more: Any,
    ) -> Receipt:
        """Send a corrected (or confirmed) answer; when this returns, the server has it on disk.

        client.feedback(text, "refund", prediction=client.predict(text))

        Args:
            text: as it was sent; or a ready `Feedback`.
            label: the right label.
            timeout_s: of this call, retries included; sending it again changes nothing.
            more: spans, task, prediction, text2, head, tail, lang, source, as for
                `client.feedback.build_feedback`.

        Raises:
            FeedbackOff: the server has no store.
            TaskUnknown, LabelUnknown, FeedbackInvalid: the answer does not fit the task.
            FeedbackRefused, FeedbackFull: the policy does not let it be kept; there is no room.
        """
        made = text if isinstance(text, Feedback) else build_feedback(text, label, **more)
        data = write_feedback(made).SerializeToString()
        return read_receipt(pb.FeedbackResponse.FromString(self._call("Feedback", data, timeout_s)))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _call(self, method: str, data: bytes, timeout_s: float | None) -> bytes:
        call = self._calls.get(method)
        if call is None:
            call = self._calls[method] = self._channel.unary_unary(method_path(method))
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            answer: bytes = call(data, timeout=wait_s, metadata=with_trace(self._metadata))
        except grpc.RpcError as error:
            raise read_failure(error, self.address) from None
        return answer
