"""Streamed text equals decoded whole text, wherever the bytes are cut, and stop strings never show."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from padlite.streaming import TextStream

stops = st.lists(st.text("ab ", min_size=1, max_size=4), max_size=3)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def stream(pieces: list[bytes], stop: list[str]) -> list[str]:
    text = TextStream(stop)
    return [*(text.feed(piece) for piece in pieces), text.finish()]


@given(st.binary(max_size=60), st.lists(st.integers(0, 1000), max_size=10))
def test_streamed_text_equals_the_whole_for_any_bytes_and_cuts(data: bytes, cuts: list[int]) -> None:
    assert "".join(stream(cut(data, cuts), [])) == data.decode("utf-8", errors="replace")


@given(st.text("ab c", max_size=30), st.lists(st.integers(0, 1000), max_size=10), stops)
def test_stop_strings_are_never_shown_and_cut_at_the_first(text: str, cuts: list[int], stop: list[str]) -> None:
    shown = "".join(stream(cut(text.encode(), cuts), stop))
    assert not any(s in shown for s in stop)
    assert text.startswith(shown)
    # One piece a character is the finest cutting: the stop string that is complete first ends the text.
    ends = [text.find(s) + len(s) for s in stop if s in text]
    if not ends:
        assert shown == text


@given(st.text("ab c", max_size=30), stops)
def test_byte_by_byte_a_stop_string_ends_the_text_as_soon_as_it_is_complete(text: str, stop: list[str]) -> None:
    shown = "".join(stream([bytes([b]) for b in text.encode()], stop))
    end = min((text.find(s) + len(s) for s in stop if s in text), default=None)
    expected = text if end is None else text[: min(text[:end].find(s) for s in stop if s in text[:end])]
    assert shown == expected


@given(st.text(max_size=20))
def test_whole_characters_only(text: str) -> None:
    parts = stream([bytes([b]) for b in text.encode()], [])
    assert "".join(parts) == text
    assert "\ufffd" not in "".join(parts) or "\ufffd" in text


def test_text_is_held_back_only_as_long_as_it_may_be_a_stop_string() -> None:
    text = TextStream(["END"])
    assert [text.feed(b"a EN"), text.feed(b"x"), text.feed(b"E"), text.finish()] == ["a ", "ENx", "", "E"]
