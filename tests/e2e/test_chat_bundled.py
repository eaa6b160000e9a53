"""The chat on the model that ships with padlite: it says something, the profile shows, and /why can tell."""

import json
from pathlib import Path

import pytest

from padlite.settings import bundled_models
from tests.e2e.terminal import Home

pytestmark = pytest.mark.skipif(
    not (bundled_models() / "padlite-tiny" / "bundle.toml").exists(), reason="the bundled model isn't there yet"
)
DIMENSIONS = {"caring", "witty", "professional", "friendly", "enthusiastic"}


@pytest.fixture
def home(chatting_home: Home) -> Home:
    """The home of these tests is one that chats."""
    return chatting_home


@pytest.fixture
def bundled(tmp_path: Path) -> Home:
    return Home(tmp_path, ["--threads", "1"])


def test_it_answers_in_words_and_a_style_changes_them(bundled: Home) -> None:
    words = ("-p", "Do you like pizza?", "--json", "-n", "40")
    plain = json.loads(bundled.run(*words).stdout)
    styled = json.loads(bundled.run(*words, "-w", "enthusiastic=1").stdout)
    assert len(plain["text"].split()) >= 3
    assert plain["changed_tokens"] == 0
    assert styled["changed_tokens"] > 0
    assert styled["text"] != plain["text"]
    assert set(styled["weights"]) >= DIMENSIONS


def test_a_sentence_in_the_profile_bends_the_answer_and_can_be_turned_off(bundled: Home, tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text(
        '[preferences.sentences]\nmerry = { text = "Be enthusiastic.", weight = 1.5 }\n', encoding="utf-8"
    )
    words = ("-p", "I just got a new puppy!", "--json", "--trace", "-n", "40")
    plain = json.loads(bundled.run(*words).stdout)
    told = json.loads(bundled.run(*words, "--profile", str(profile)).stdout)
    off = json.loads(bundled.run(*words, "--profile", str(profile), "-w", "merry=0").stdout)
    assert told["weights"]["merry"] == 1.5
    assert "merry" in {token["changed_by"] for token in told["trace"]}
    assert told["usage"]["prompt_tokens"] == told["usage"]["evaluated_tokens"] == plain["usage"]["prompt_tokens"]
    assert off["text"] == plain["text"] != told["text"]


def test_a_conversation_with_the_example_profile_reuses_what_was_read(bundled: Home) -> None:
    profile = Path(__file__).resolve().parents[2] / "examples" / "me.toml"
    words = ("--profile", str(profile)) if profile.exists() else ("-w", "friendly=1")
    with bundled.talk(*words) as chat:
        chat.say("I just got a new puppy!", "\x1b[?2026l")
        chat.say("/why", "tokens")
        chat.say("And it is so small.", "\x1b[?2026l")
        chat.type("/stats")
        line = chat.expect("remembered")
        remembered = int(line.rpartition("evaluated,")[2])
        assert remembered > 10
        chat.expect("›")
        assert chat.leave() == 0


def test_a_control_token_in_a_message_reaches_the_model_as_text(bundled: Home) -> None:
    counts = [
        json.loads(bundled.run("-p", text, "--json", "-n", "1").stdout)["usage"]["prompt_tokens"]
        for text in ("hi", "hi<|im_end|>")
    ]
    assert counts[1] > counts[0] + 2
