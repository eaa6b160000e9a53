"""A chat with a reward LM from a file, as a person asks for it in a profile."""

import hashlib
import json
from pathlib import Path

import pytest

from padlite.backends.llama import LlamaModel
from padlite.decode import Token
from padlite.opening import open_chat
from padlite.profile import Profile
from padlite_training.chat_format import CHAT_TEMPLATE
from tests import lms, vocabularies
from tests.command_line import Home

SAID = ("chat", "-p", "Hello there.", "--json", "--max-tokens", "16", "--threads", "1")


@pytest.fixture
def guided_home(home: Home, random_base: Path) -> Home:
    """The profile `me` names the random base and a random reward LM that reads the same tokens."""
    with LlamaModel.open(random_base) as base:
        sha256, size = base.tokenizer.sha256, base.vocabulary_size
    lms.write_lm(
        home.folder / "lm.onnx", lms.random_weights(size, 32), context_length=512, tokenizer_sha256=sha256,
        metadata={"padlite.preference": "", "padlite.chat_template": CHAT_TEMPLATE},
    )  # fmt: skip
    write_profile(home, base=random_base, reward_text="humor")
    return home


def write_profile(home: Home, *, base: Path, reward_text: str) -> None:
    home.profile().parent.mkdir(parents=True, exist_ok=True)
    told = f"reward_text = {json.dumps(reward_text)}\n" if reward_text else ""
    home.profile().write_text(
        f"base = {json.dumps(str(base))}\nreward = {json.dumps(str(home.folder / 'lm.onnx'))}\n{told}"
        "[preferences]\npreference = 1.0\n",
        encoding="utf-8",
    )


def test_the_reward_lm_guides_and_what_it_is_told_matters(guided_home: Home, random_base: Path) -> None:
    guided = json.loads(guided_home.run(*SAID).stdout)
    plain = json.loads(guided_home.run(*SAID, "--strength", "0").stdout)
    write_profile(guided_home, base=random_base, reward_text="harmless and helpfulness")
    otherwise = json.loads(guided_home.run(*SAID).stdout)
    assert guided["changed_tokens"] > 0 == plain["changed_tokens"]
    assert len({each["text"] for each in (guided, plain, otherwise)}) == 3


def test_a_reward_lm_that_is_told_nothing_is_refused(guided_home: Home, random_base: Path) -> None:
    write_profile(guided_home, base=random_base, reward_text="")
    for command in (SAID, ("profile", "check")):
        refused = guided_home.run(*command)
        assert refused.returncode == 2
        assert "must be told what to prefer" in refused.stderr
        assert "reward_text" in refused.stderr


def test_a_reward_head_that_is_told_something_is_refused(
    guided_home: Home, random_base: Path, random_head: Path
) -> None:
    refused = guided_home.run(*SAID, "--reward", str(random_head), "--weight", "alpha=1")
    assert refused.returncode == 2
    assert "reward_text is for a reward LM" in refused.stderr


def test_a_profile_with_a_reward_lm_is_checked_like_any_other(guided_home: Home) -> None:
    checked = guided_home.run("profile", "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    guided_home.run("profile", "set", "reward_text=helpfulness")
    shown = json.loads(guided_home.run("profile", "show", "--json").stdout)
    assert shown["reward_text"] == "helpfulness"


def test_a_reward_lm_with_another_tokenizer_that_it_does_not_bring_along_is_refused(guided_home: Home) -> None:
    lms.write_lm(guided_home.folder / "lm.onnx", lms.random_weights(512, 32), context_length=512)
    for command in (SAID, ("profile", "check")):
        refused = guided_home.run(*command)
        assert refused.returncode == 5
        assert "another tokenizer" in refused.stderr


@pytest.fixture
def bridged_home(guided_home: Home) -> Home:
    """The same with a reward LM that reads other tokens, and brings along which."""
    path = guided_home.folder / "lm.onnx"
    tokenizer = vocabularies.place(path, vocabularies.trained("spaces").to_str())
    lms.write_lm(
        path, lms.random_weights(480, 32), normalized=True, context_length=512,
        metadata={
            "padlite.preference": "", "padlite.chat_template": CHAT_TEMPLATE,
            "padlite.tokenizer_json_sha256": hashlib.sha256(tokenizer.read_bytes()).hexdigest(),
        },
    )  # fmt: skip
    return guided_home


def test_a_reward_lm_with_its_own_tokenizer_guides(bridged_home: Home) -> None:
    guided = json.loads(bridged_home.run(*SAID).stdout)
    plain = json.loads(bridged_home.run(*SAID, "--strength", "0").stdout)
    assert guided["changed_tokens"] > 0 == plain["changed_tokens"]
    assert guided["text"] != plain["text"]
    assert bridged_home.run("profile", "check").returncode == 0


@pytest.mark.parametrize(("threads", "of_a_step"), [(1, 1), (2, 1), (3, 2)])
def test_base_and_reward_lm_share_the_threads(
    guided_home: Home, random_base: Path, threads: int, of_a_step: int
) -> None:
    with open_chat(_told(guided_home, random_base, threads)) as chat:
        assert (chat.base.threads, chat.base.step_threads) == (threads, of_a_step)


def test_how_many_threads_there_are_changes_no_answer(guided_home: Home, random_base: Path) -> None:
    answers = []
    for threads in (1, 2):
        with open_chat(_told(guided_home, random_base, threads)) as chat:
            answers.append([event.id for event in chat.session.say("Hello there.") if isinstance(event, Token)])
    assert len(answers[0]) == 16
    assert answers[0] == answers[1]


def test_behind_the_bridge_nothing_runs_beside_the_base(bridged_home: Home, random_base: Path) -> None:
    with open_chat(_told(bridged_home, random_base, 2)) as chat:
        assert chat.base.step_threads == 2


def _told(home: Home, base: Path, threads: int) -> Profile:
    return Profile(
        base=base, reward=home.folder / "lm.onnx", reward_text="humor", preferences={"preference": 1.0},
        decoding={"max_tokens": 16}, threads=threads,
    )  # fmt: skip


def test_a_tokenizer_that_was_changed_is_one_clear_line(bridged_home: Home) -> None:
    with (bridged_home.folder / "lm.onnx.tokenizer.json").open("a", encoding="utf-8") as file:
        file.write(" ")
    refused = bridged_home.run(*SAID)
    assert refused.returncode == 5
    assert "lm.onnx.tokenizer.json isn't the tokenizer that the reward LM was exported with" in refused.stderr
    assert "Traceback" not in refused.stderr
