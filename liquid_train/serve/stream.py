"""One stream: steps in, outputs out; the recurrent state lives and dies with the connection."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from contextlib import suppress

from fastapi import WebSocket
from pydantic import BaseModel, ValidationError
from starlette.websockets import WebSocketDisconnect

from liquid_train.serve.check import UnfitError, check_step
from liquid_train.serve.model import Model, Recurrence
from liquid_train.serve.problems import in_words
from liquid_train.serve.schemas import Problem, StepRequest, StepResponse
from liquid_train.serve.settings import Limits
from liquid_train.serve.telemetry import ServeTelemetry

_GOING_AWAY, _UNSUPPORTED, _FAULT = 1001, 1003, 1011


class Stream:
    """A conversation with one client. A step that cannot be taken is answered by its error and changes nothing.

    Args:
        socket: Not accepted yet.
        model: Takes the steps.
        executor: Its thread.
        limits: On silence and on reading.
        telemetry: Counts steps.
    """

    def __init__(
        self, socket: WebSocket, model: Model, executor: Executor, limits: Limits, telemetry: ServeTelemetry
    ) -> None:
        self._socket, self._model, self._executor = socket, model, executor
        self._limits, self._telemetry = limits, telemetry
        self._recurrence = Recurrence(model)

    async def run(self) -> None:
        """Serve until the client leaves, is silent, or does not read."""
        await self._socket.accept()
        try:
            while (text := await self._next()) is not None:
                answer = await self._answer(text)
                await asyncio.wait_for(
                    self._socket.send_text(answer.model_dump_json()), self._limits.patience
                )
        except (WebSocketDisconnect, OSError, asyncio.TimeoutError):
            return  # gone, or not reading: nothing more reaches it
        except Exception:
            await self._leave(_FAULT, "the step failed")
            raise

    async def _next(self) -> str | None:
        """The next message; None where the conversation is over."""
        try:
            message = await asyncio.wait_for(self._socket.receive(), self._limits.idle)
        except asyncio.TimeoutError:
            await self._leave(_GOING_AWAY, f"silent for {self._limits.idle:g} s")
            return None
        if message["type"] == "websocket.disconnect":
            return None
        text = message.get("text")
        if text is None:
            await self._leave(_UNSUPPORTED, "steps are text, not bytes")
        return text

    async def _answer(self, text: str) -> BaseModel:
        try:
            request = StepRequest.model_validate_json(text)
            check_step(request, self._model)
            began = time.perf_counter()
            loop, step = asyncio.get_running_loop(), self._recurrence.steps
            output = await loop.run_in_executor(
                self._executor, self._recurrence.step, request.values, request.timespan
            )
        except ValidationError as error:
            return Problem(error=in_words(error.errors()))
        except (UnfitError, OverflowError) as error:
            return Problem(error=str(error))
        self._telemetry.step(time.perf_counter() - began)
        return StepResponse(step=step, output=output)

    async def _leave(self, code: int, reason: str) -> None:
        with suppress(asyncio.TimeoutError, RuntimeError, OSError):
            await asyncio.wait_for(self._socket.close(code, reason), self._limits.patience)
