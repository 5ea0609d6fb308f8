"""A request and its steps, as context managers that never raise."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from liquid_telemetry.errors import text_of
from liquid_telemetry.inference.subject import Subject, shape_of
from liquid_telemetry.signals import NAMESPACE

if TYPE_CHECKING:
    from typing_extensions import Self

    from liquid_telemetry.inference.session import Session

REQUEST, PREPROCESS, FORWARD, POSTPROCESS = (
    "liquid_nn_inference",
    "preprocess_input",
    "model_forward_pass",
    "postprocess_output",
)
_propagator = TraceContextTextMapPropagator()
current: ContextVar[Request | None] = ContextVar("liquid_telemetry_request", default=None)


class _Timed:
    """A span around a block; a fault of ours is counted, an exception of the block passes."""

    name = ""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.span: Span = trace.INVALID_SPAN
        self._token: Token[context.Context] | None = None

    def set(self, **attributes: Any) -> None:
        """Add attributes of the catalogue, with an underscore for the dot."""
        with self._session.faults.guard("tracing"):
            for name, value in attributes.items():
                if value is not None:
                    self.span.set_attribute(NAMESPACE + name.replace("_", ".", 1), value)

    def _begin(
        self, around: context.Context | None, attributes: Mapping[str, Any], start_ns: int | None = None
    ) -> None:
        tracer = self._session.tracer
        self.span = tracer.start_span(self.name, around, attributes=attributes, start_time=start_ns)
        self._token = context.attach(trace.set_span_in_context(self.span, around))

    def _finish(self, error: BaseException | None) -> None:
        if self._token is not None:
            context.detach(self._token)
        if error is not None:
            self.span.set_attribute("error.type", type(error).__qualname__)
            if isinstance(error, Exception):
                self.span.record_exception(error)
            self.span.set_status(Status(StatusCode.ERROR, text_of(error)))
        self.span.end()


class Step(_Timed):
    """One of the three steps of a request."""

    def __init__(self, session: Session, name: str, attributes: Mapping[str, Any]) -> None:
        super().__init__(session)
        self.name, self._attributes = name, attributes

    def __enter__(self) -> Self:
        try:
            self._begin(None, self._attributes)
        except Exception as fault:
            self._session.faults.report("tracing", fault)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._finish(error)
        except Exception as fault:
            self._session.faults.report("tracing", fault)


class NoStep:
    """A step outside of a request, or with telemetry switched off."""

    span: Span = trace.INVALID_SPAN

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def set(self, **attributes: Any) -> None:
        """Nothing."""

    def preprocess(self, input: Any = None) -> NoStep:
        """Nothing."""
        return self

    def forward(self, model: Any = None) -> NoStep:
        """Nothing."""
        return self

    def postprocess(self, output: Any = None) -> NoStep:
        """Nothing."""
        return self


class Request(_Timed):
    """One request: a span with its steps, a duration, a count.

    Args:
        session: Where the signals go.
        subject: The model.
        headers: Of the caller, whose trace (``traceparent``) goes on here; names in lower case.
    """

    name = REQUEST

    def __init__(self, session: Session, subject: Subject, headers: Mapping[str, str] | None) -> None:
        super().__init__(session)
        self._subject, self._headers = subject, headers
        self._start_ns = self._start = 0
        self._outer: Token[Request | None] | None = None
        self.steps = 0

    def preprocess(self, input: Any = None) -> Step:
        """The step that makes tensors of what was asked; ``input`` gives ``input.shape``."""
        return self._step(PREPROCESS, {"input.shape": shape_of(input)})

    def forward(self, model: Any = None) -> Step:
        """The step in the model; host time, no device is waited for."""
        return self._step(FORWARD, self._named(self._subject if model is None else Subject(model)))

    def postprocess(self, output: Any = None) -> Step:
        """The step that makes an answer of the model's output; ``output`` gives ``output.shape``."""
        return self._step(POSTPROCESS, {"output.shape": shape_of(output)})

    def _named(self, subject: Subject) -> dict[str, Any]:
        return {"model.type": subject.type, "model.parameters": subject.parameters, "device": subject.device}

    def _step(self, name: str, attributes: Mapping[str, Any]) -> Step:
        self.steps += 1
        known = {NAMESPACE + key: value for key, value in attributes.items() if value is not None}
        return Step(self._session, name, known)

    def whole(self) -> None:
        """Nobody told of steps: all of it was the model's."""
        with self._session.faults.guard("tracing"):
            span = self._session.tracer.start_span(FORWARD, start_time=self._start_ns)
            for key, value in self._named(self._subject).items():
                if value is not None:
                    span.set_attribute(NAMESPACE + key, value)
            span.end()

    def __enter__(self) -> Self:
        try:
            around = _propagator.extract(dict(self._headers)) if self._headers else None
            info = self._session.info
            names = {NAMESPACE + "run.id": info.run_id, NAMESPACE + "model.name": info.model_name}
            self._start_ns = time.time_ns()
            self._begin(around, names, self._start_ns)
        except Exception as fault:
            self._session.faults.report("tracing", fault)
        self._outer = current.set(self)
        self._start = time.perf_counter_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = (time.perf_counter_ns() - self._start) / 1e9
        session = self._session
        try:
            if self._outer is not None:
                current.reset(self._outer)
            self._finish(error)
        except Exception as fault:
            session.faults.report("tracing", fault)
        try:
            subject = self._subject
            session.counts.request(seconds, subject.type, subject.device, self._exemplar())
            session.touch()
        except Exception as fault:
            session.faults.report("metrics", fault)

    def _exemplar(self) -> dict[str, str] | None:
        found = self.span.get_span_context()
        if not (found.is_valid and found.trace_flags.sampled):
            return None
        return {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"}
