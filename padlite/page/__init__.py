"""The page at `/` of `padlite serve`: one document, put together from its parts, that loads nothing from anywhere.

Its Content-Security-Policy names the script and the style by their hashes, so that nothing else in it can ever run.
Knows no server and no model.
"""

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files

_PARTS = {"page.css": "/*style*/", "page.js": "/*script*/"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The document, UTF-8, and the headers that it must be sent with."""

    html: bytes
    headers: dict[str, str]


def page() -> Page:
    """Return the page, read from the files beside this module."""
    folder = files("padlite.page")
    html = folder.joinpath("page.html").read_text(encoding="utf-8")
    hashes: dict[str, str] = {}
    for name, place in _PARTS.items():
        text = folder.joinpath(name).read_text(encoding="utf-8")
        html = html.replace(place, text)
        hashes[name] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['page.js']}'; style-src 'sha256-{hashes['page.css']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    )
    headers = {
        "content-security-policy": policy,
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cross-origin-opener-policy": "same-origin",
    }
    return Page(html=html.encode(), headers=headers)
