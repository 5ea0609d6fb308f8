"""The helper for people's own inference code."""

from __future__ import annotations

import atexit
import inspect
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from liquid_telemetry.inference.metrics import Counts
from liquid_telemetry.inference.requests import NoStep, Request, Step, current
from liquid_telemetry.inference.session import Session, SessionOptions
from liquid_telemetry.inference.subject import Subject, shape_of
from liquid_telemetry.observe.guard import Faults
from liquid_telemetry.switch import is_switched_off

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from prometheus_client import CollectorRegistry
    from typing_extensions import Self

P = ParamSpec("P")
R = TypeVar("R")

_all: weakref.WeakSet[Inference] = weakref.WeakSet()


class Inference:
    """Tells of a model's requests: a trace, a duration and a count for each.

    As a decorator around any function, or by its parts::

        inference = Inference(model)

        @inference
        def classify(series):
            with inference.preprocess() as step:
                x = torch.tensor(series)
                step.set(input_shape=str(list(x.shape)))
            with inference.forward():
                y = model(x)
            with inference.postprocess(y):
                return y.argmax(-1).tolist()

    A decorated function that names no steps counts as the forward pass. ``with inference.request(headers):`` does the
    same for a block; ``headers`` may carry a caller's ``traceparent``. Nothing here raises or waits for a device; files
    are written by a thread of its own, begun with the first request, at most once a second.

    Args:
        model: The module, or whatever answers; gives ``model.type``, ``model.parameters`` and the device.
        model_name: Name of the model in spans; its type by default.
        model_type: Value of the label; the name of its class, or of the function.
        device: Value of the label; that of the model's first parameter, or cpu.
        dir: Folder that gets a sub-folder with ``traces.jsonl``.
        host: Address for the exporter process to serve at.
        port: Its port; 0 for a free one.
        otlp_endpoint: Where spans are sent besides, as ``http://localhost:4318``.
        traces_per_second: How many traces our own file gets of a second; failing ones beyond it.
        enabled: Whether to do anything at all.
        registry: Show the metrics there instead of by the exporter process.
        tracer_provider: The provider to make spans with; else the program's global one, else ours.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        model_name: str | None = None,
        model_type: str | None = None,
        device: str | None = None,
        dir: str = "runs",
        host: str = "127.0.0.1",
        port: int = 9464,
        otlp_endpoint: str | None = None,
        traces_per_second: float = 50.0,
        enabled: bool = True,
        registry: CollectorRegistry | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.subject = Subject(model, model_type, device)
        self.enabled = enabled and not is_switched_off()
        self._options = SessionOptions(
            model_name=model_name or self.subject.type,
            dir=dir,
            host=host,
            port=port,
            otlp_endpoint=otlp_endpoint,
            traces_per_second=traces_per_second,
            exporter=registry is None,
            registry=registry,
            tracer_provider=tracer_provider,
        )
        self.faults = Faults()
        self._session: Session | None = None
        self._closed = False
        self._opening = threading.Lock()
        _all.add(self)

    @classmethod
    def with_options(cls, subject: Subject, options: SessionOptions) -> Self:
        """One whose options a constructor's arguments do not reach, for a server."""
        made = cls(model_type=subject.type)
        made.subject, made._options = subject, options
        return made

    def request(self, headers: Mapping[str, str] | None = None) -> Request | NoStep:
        """A block that answers one request.

        Args:
            headers: Of the caller, names in lower case; the trace of its ``traceparent`` goes on here.
        """
        session = self.session()
        return NoStep() if session is None else Request(session, self.subject, headers)

    def preprocess(self, input: Any = None) -> Step | NoStep:
        """The step of the current request that makes tensors; ``input`` gives ``input.shape``."""
        request = current.get()
        return NoStep() if request is None else request.preprocess(input)

    def forward(self, model: Any = None) -> Step | NoStep:
        """The step of the current request in the model, or in another ``model``."""
        request = current.get()
        return NoStep() if request is None else request.forward(model)

    def postprocess(self, output: Any = None) -> Step | NoStep:
        """The step of the current request that makes the answer; ``output`` gives ``output.shape``."""
        request = current.get()
        return NoStep() if request is None else request.postprocess(output)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Make every call of a function, or of a coroutine function, a request.

        Raises:
            TypeError: It is a generator function, whose work is done after the call.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function.__name__} is a generator function: its call does no work; put `with request():` in it"
            )
        # A module's __dict__ is no function's.
        shared = ("__dict__",) if inspect.isroutine(function) else ()
        if inspect.iscoroutinefunction(function):

            @wraps(function, updated=shared)
            async def answer_later(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self.request() as request:
                    result = await function(*args, **kwargs)
                    _conclude(request, args, result)
                    return result

            return cast("Callable[P, R]", answer_later)

        @wraps(function, updated=shared)
        def answer(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.request() as request:
                result = function(*args, **kwargs)
                _conclude(request, args, result)
                return result

        return answer

    def session(self) -> Session | None:
        """What this process writes to, opened now if it is not; None where telemetry is off, or cannot be had."""
        found = self._session
        if found is not None and found.pid == os.getpid():
            return found
        if not self.enabled or self._closed:
            return None
        with self._opening:
            return self._open()

    def _open(self) -> Session | None:
        if self._session is not None and self._session.pid == os.getpid():
            return self._session  # by another thread, meanwhile
        try:
            counts = Counts(self._options.model_name, self.faults, self._options.registry)
            counts.announce(self.subject.type, self.subject.device)
            self._session = Session(self._options, counts, self.faults)
        except Exception as fault:
            self.faults.report("observer", fault)
            self.enabled = False
            return None
        return self._session

    @property
    def dir(self) -> str | None:
        """The run directory; None before the first request."""
        return os.fspath(self._session.info.dir) if self._session is not None else None

    def close(self) -> None:
        """Write the rest and give up the place in the spool; done at the end of the process as well."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            with self.faults.guard("observer"):
                session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        stay = ("_session", "_opening", "faults")
        return {name: value for name, value in self.__dict__.items() if name not in stay}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, faults=Faults(), _session=None, _opening=threading.Lock())
        _all.add(self)


def _conclude(request: Request | NoStep, args: tuple[Any, ...], result: Any) -> None:
    if isinstance(request, Request):
        if not request.steps:
            request.whole()
        shaped = next((shape for shape in map(shape_of, args) if shape is not None), None)
        request.set(input_shape=shaped, output_shape=shape_of(result))


@atexit.register
def _close_all() -> None:
    for inference in list(_all):
        inference.close()


def _renew_locks() -> None:
    """One that another thread held at the fork would never be free."""
    for inference in list(_all):
        inference._opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
