"""Errors as answers: one line of JSON, whatever went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from liquid_train.serve.check import UnfitError

_LONGEST = 300


def in_words(errors: Iterable[Mapping[str, Any]]) -> str:
    """Return pydantic's first error as one line: the place and the rule, without the value."""
    first = next(iter(errors), {})
    place = ".".join(str(part) for part in first.get("loc", ()) if part != "body")
    text = str(first.get("msg", "not what is expected"))
    return " ".join(f"{place}: {text}".removeprefix(": ").split())[:_LONGEST]


def not_json(errors: Sequence[Mapping[str, Any]]) -> str | None:
    """Return where and why a body is not JSON, or None if it is."""
    first = next(iter(errors), {})
    if first.get("type") != "json_invalid":
        return None
    reason = str(first.get("ctx", {}).get("error", "")).rstrip(".")
    return f"the body is not JSON: {reason} at character {first['loc'][-1]}"[:_LONGEST]


def answer_problems(app: FastAPI, paths: Iterable[str]) -> None:
    """Answer errors of an application by ``{"error": …}``."""
    there = ", ".join(paths)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        found = error.errors() if isinstance(error, RequestValidationError) else ()
        broken = not_json(found)
        return _problem(422, in_words(found)) if broken is None else _problem(400, broken)

    async def unfit(request: Request, error: Exception) -> JSONResponse:
        return _problem(422, str(error))

    async def http(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            return _problem(500, type(error).__name__)
        text = f"no such path; there are {there}" if error.status_code == 404 else str(error.detail)
        return _problem(error.status_code, text, error.headers)

    async def fault(request: Request, error: Exception) -> JSONResponse:
        return _problem(500, type(error).__name__)

    for kind, handler in (
        (RequestValidationError, invalid),
        (UnfitError, unfit),
        (HTTPException, http),
        (Exception, fault),
    ):
        app.add_exception_handler(kind, handler)


def _problem(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, dict(headers) if headers else None)
