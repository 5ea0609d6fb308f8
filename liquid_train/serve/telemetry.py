"""What a server tells of itself: counts of calls, deployments, active models, events."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from liquid_telemetry.inference.helper import Inference
from liquid_telemetry.inference.session import Session, SessionOptions
from liquid_telemetry.inference.subject import Subject
from liquid_telemetry.logs.events import EventLog
from liquid_telemetry.signals import DEPLOYMENT_STATUSES
from liquid_train.serve.model import Model
from liquid_train.serve.settings import Settings

PLATFORM = "serve"
ENDPOINTS = ("/predict", "/stream", "/model", "/health", "/live", "/ready", "/metrics", "/openapi.json")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
OTHER = "other"


@dataclass(frozen=True)
class Deployment:
    """One attempt to serve a model.

    Args:
        version: Name of the weights, or of the file where those could not be read.
        began_ns: Unix nanoseconds.
    """

    version: str
    began_ns: int

    @property
    def seconds(self) -> float:
        """Since it began."""
        return (time.time_ns() - self.began_ns) / 1e9


class ServeTelemetry:
    """The telemetry of one server; what fails in it is counted and does not reach a client.

    Args:
        model: What is served; None where it could not be loaded.
        settings: Of the server.
        deployment: The attempt.
    """

    def __init__(self, model: Model | None, settings: Settings, deployment: Deployment) -> None:
        self.registry = CollectorRegistry()
        subject = Subject(model.task, model.name) if model is not None else Subject(None, "unknown")
        options = SessionOptions(
            model_name=subject.type,
            stage="serve",
            dir=settings.dir,
            exporter=settings.exporter,
            events=True,
            registry=self.registry,
        )
        self.inference = Inference.with_options(subject, options)
        self._environment, self._deployment = settings.environment, deployment
        self._log: EventLog | None = None
        session = self._session = self.inference.session()
        if session is not None:
            for status in DEPLOYMENT_STATUSES:
                session.counts.add("model_deployments_total", status == "started", PLATFORM, status)
            info = session.info
            self._log = EventLog(info.dir / "events.jsonl", info.run_id, info.model_name)
        self._event("model_deployment_started", deployment.began_ns, target_platform=PLATFORM)

    @property
    def session(self) -> Session | None:
        """What it writes to; None with telemetry switched off."""
        return self._session

    def completed(self) -> None:
        """The model is served."""
        self._deployed("completed")
        if self._session is not None:
            self._session.counts.set("active_models", 1, self._environment)
            for method, endpoint in (("POST", "/predict"), ("GET", "/stream")):
                self._session.counts.add(
                    "api_calls_total", 0, endpoint, method, "200" if method == "POST" else "101"
                )
            self._session.touch()

    def failed(self, error: BaseException) -> None:
        """It could not be served."""
        self._deployed("failed", error_type=type(error).__name__, error_message=str(error)[:1000])
        self.close()

    def ended(self, reason: str) -> None:
        """Everything that was accepted has been answered."""
        if self._session is not None:
            self._session.counts.set("active_models", 0, self._environment)
        self._event("serving_ended", duration_seconds=self._deployment.seconds, reason=reason)
        self.close()

    def close(self) -> None:
        """Write the rest."""
        self.inference.close()
        if self._log is not None:
            self._log.close()

    def call(self, endpoint: str, method: str, status: int) -> None:
        """Count a call; the labels are bounded here."""
        if self._session is not None:
            with self.inference.faults.guard("metrics"):
                known = endpoint if endpoint in ENDPOINTS else OTHER
                self._session.counts.add(
                    "api_calls_total", 1, known, method if method in METHODS else OTHER, str(status)
                )
                self._session.touch()

    def step(self, seconds: float) -> None:
        """Count one step of a stream: a request without a span."""
        if self._session is not None:
            with self.inference.faults.guard("metrics"):
                subject = self.inference.subject
                self._session.counts.request(seconds, subject.type, subject.device)
                self._session.touch()

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics of this server and their content type."""
        if self._session is not None:
            self._session.counts.tell_faults()
        try:
            encode, content_type = choose_encoder(accept)
        except TypeError:  # a version that is no number
            encode, content_type = choose_encoder("")
        return bytes(encode(self.registry)), content_type

    def is_well(self, signal: str) -> bool:
        """Whether a signal has had no fault."""
        return not any(kind == signal for kind, _ in self.inference.faults.errors)

    @property
    def dir(self) -> str | None:
        """The run directory."""
        return os.fspath(self._session.info.dir) if self._session is not None else None

    def _deployed(self, status: str, **fields: object) -> None:
        if self._session is not None:
            self._session.counts.add("model_deployments_total", 1, PLATFORM, status)
        seconds = self._deployment.seconds
        self._event(
            f"model_deployment_{status}", None, target_platform=PLATFORM, duration_seconds=seconds, **fields
        )

    def _event(self, name: str, time_ns: int | None = None, **fields: object) -> None:
        if self._log is not None and self._session is not None:
            names = {"model_version": self._deployment.version, "deployment_id": self._session.info.run_id}
            with self.inference.faults.guard("logging"):
                self._log.write(name, time_ns, **names, **fields)
