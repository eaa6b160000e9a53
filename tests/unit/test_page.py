"""The page as a document: nothing from elsewhere, nothing that its policy wouldn't run, colours that can be read."""

import base64
import hashlib
import re
from importlib.resources import files

import pytest

from padlite.page import page

HTML = page().html.decode()
CSS = files("padlite.page").joinpath("page.css").read_text(encoding="utf-8")


@pytest.mark.parametrize(("tag", "directive"), [("script", "script-src"), ("style", "style-src")])
def test_the_policy_allows_the_pages_own_script_and_style_by_hash_and_nothing_else(tag: str, directive: str) -> None:
    (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", HTML, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
    policy = dict(part.strip().split(" ", 1) for part in page().headers["content-security-policy"].split(";"))
    assert policy[directive] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"


def test_the_page_names_no_other_address_and_has_no_inline_handler_or_style() -> None:
    assert not re.findall(r"(?:https?:)?//[a-z]+\.", HTML)
    assert not re.findall(r"<[^>]+ (?:on\w+|style)=", HTML)
    assert "innerHTML" not in HTML


def _palettes() -> list[dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", part)) for part in (light, dark)]


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", _palettes(), ids=["light", "dark"])
def test_every_colour_of_text_can_be_read_on_both_grounds(palette: dict[str, str]) -> None:
    texts = {name: colour for name, colour in palette.items() if name not in {"ground", "raised", "line"}}
    assert {"ink", "soft", "accent", "alarm", "d0", "d7"} <= set(texts)
    too_faint = {
        (name, ground)
        for name, colour in texts.items()
        for ground in ("ground", "raised")
        for low, high in [sorted((_luminance(colour), _luminance(palette[ground])))]
        if (high + 0.05) / (low + 0.05) < 4.5  # WCAG 2.2, AA
    }
    assert too_faint == set()
