"""The page: one HTML document that asks for nothing but its own data."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files

_PARTS = {"/*style*/": ("uPlot.min.css", "page.css"), "/*script*/": ("uPlot.iife.min.js", "page.js")}


@cache
def document() -> tuple[bytes, Mapping[str, str]]:
    """Return the document and the headers that it goes with, which allow no other script, style or origin."""
    folder = files(__package__) / "static"
    text = (folder / "page.html").read_text("utf-8")
    hashes = {}
    for mark, names in _PARTS.items():
        part = "\n".join((folder / name).read_text("utf-8") for name in names)
        hashes[mark] = b64encode(sha256(part.encode()).digest()).decode()
        text = text.replace(mark, part)
    policy = {
        "default-src": "'none'",
        "style-src": f"'sha256-{hashes['/*style*/']}'",
        "script-src": f"'sha256-{hashes['/*script*/']}'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return text.encode(), {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Referrer-Policy": "no-referrer",
    }
