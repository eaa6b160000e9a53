"""The bridge on real vocabularies: rebuilt tokenizers read as llama.cpp does, and the laws hold on them as well.

Set PADLITE_VOCABULARIES to the folder with llama.cpp's ggml-vocab-*.gguf (`benchmarks/real_vocabularies.py`).
"""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import real_vocabularies
from benchmarks.bridge import Pair, by_brute_force, compared, hard_candidates, text
from padlite.backends.onnx_lm import OnnxLm
from padlite.backends.reward_tokenizer import RewardTokenizer
from padlite.retokenizing import LONGEST, Retokenized
from tests import lms
from tests.vocabularies import whole_tokens

FOLDER = real_vocabularies.folder()
pytestmark = pytest.mark.skipif(
    FOLDER is None, reason=f"{real_vocabularies.VARIABLE} names no folder with llama.cpp's vocabularies"
)
NAMES = ("llama-bpe", "qwen2", "gpt-2", "phi-3")
names = pytest.mark.parametrize("name", NAMES)
AWKWARD = (
    "Hello there.", " leading", "trailing ", "tab\tand\nline\r\n", "  two  spaces", "naïve café", "日本語のテキスト",
    "emoji 👩‍👩‍👧 🤷🏽", "x = [1, 2.5e-3]; // code", "ALL CAPS and 12345678", "\u200b\u00a0",
)  # fmt: skip


def path_of(name: str) -> Path:
    assert FOLDER is not None
    return real_vocabularies.vocabulary(FOLDER, name)


@cache
def own(name: str) -> RewardTokenizer:
    tokenizer, end = real_vocabularies.rebuilt(path_of(name))
    return RewardTokenizer(tokenizer.to_str(), end_text=end)


@names
def test_a_rebuilt_tokenizer_reads_as_llama_cpp_does(name: str) -> None:
    with real_vocabularies.base_tokenizer(path_of(name)) as theirs:
        for said in (*AWKWARD, text(500)):
            assert own(name).encode(said, special=True) == theirs.encode(said, special=True)


@names
@settings(max_examples=40, deadline=None)
@given(
    said=st.text(max_size=120) | st.text(alphabet="ab =\n1é😀", max_size=200),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_streamed_text_has_the_tokens_of_the_whole_text(name: str, said: str, sizes: list[int]) -> None:
    stream, settled, data = Retokenized(own(name)), list[int](), said.encode("utf-8", "replace")
    at = 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        settled += stream.feed(data[at : at + size])
        at += size
        expected = whole_tokens(own(name), data[:at])
        if expected is not None:
            assert settled + stream.end() == expected


@names
@pytest.mark.parametrize("base", ["llama-bpe", "phi-3"])
def test_over_2_000_tokens_nothing_drifts_and_only_a_short_end_is_tokenized(name: str, base: str) -> None:
    longest = 0

    class Watched:
        def continued(self, said: str) -> list[int]:
            nonlocal longest
            longest = max(longest, len(said))
            return own(name).continued(said)

        def unfinished(self, data: bytes) -> list[int] | None:
            return own(name).unfinished(data)

    stream, settled, data = Retokenized(Watched()), list[int](), b""
    with real_vocabularies.base_tokenizer(path_of(base)) as theirs:
        ids = theirs.encode(text(2200), special=False)
        for number, token in enumerate(ids):
            data += theirs.piece(token)
            settled += stream.feed(theirs.piece(token))
            if number % 200 == 0:
                expected = whole_tokens(own(name), data)
                assert expected is None or settled + stream.end() == expected
    assert len(ids) > 2000
    assert longest < 3 * LONGEST
    assert settled + stream.end() == whole_tokens(own(name), data)


@pytest.mark.parametrize(("base", "name"), [("llama-bpe", "phi-3"), ("phi-3", "gpt-2")])
def test_candidates_score_as_by_brute_force(base: str, name: str, tmp_path: Path) -> None:
    weights = lms.random_weights(-(-own(name).vocabulary_size // 8) * 8, 16)
    path = lms.write_lm(tmp_path / "reward.onnx", weights, normalized=True, context_length=1024)
    with real_vocabularies.base_tokenizer(path_of(base)) as theirs, OnnxLm.open(path, device="cpu") as lm:
        ids = theirs.encode(text(60), special=False)[:61]
        pair = Pair(base=theirs, own=own(name), weights=weights, ids=ids)
        found = compared(pair, lm)
        assert found["equal"] == 1.0
        assert found["candidates"] == 600
        candidates = hard_candidates(ids, theirs)[29]
        right, elsewhere = (by_brute_force(pair, at, candidates, lm) for at in (30, 20))
        assert abs(right - elsewhere).max() > 0.1  # what is compared isn't the same everywhere
