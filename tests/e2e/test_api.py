"""The Python API on real models: what a program that embeds padlite relies on."""

import asyncio
import contextlib
import dataclasses
import gc
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import padlite
from padlite.errors import ContextFullError, NotFoundError, ProfileError, StoreError, UsageError
from padlite.profile import Sentence

WARM = padlite.Profile(name="Ada", preferences={"caring": 1.0}, threads=1)  # a machine that tests is busy


@pytest.fixture(scope="module")
def loaded() -> Iterator[padlite.Chat]:
    """The bundled model; tests take a `new()` conversation on it."""
    with padlite.open(WARM) as chat:
        yield chat


@pytest.fixture
def chat(loaded: padlite.Chat) -> padlite.Chat:
    return loaded.new()


@pytest.fixture(scope="module")
def endless(random_base: Path) -> Iterator[padlite.Chat]:
    """A model that ends no answer by itself, with a context too long to fill in a test."""
    profile = padlite.Profile(base=random_base, context_length=100_000, threads=1)
    with padlite.open(profile) as chat:
        yield chat


def _text(events: list[padlite.Event]) -> str:
    last = events[-1]
    assert isinstance(last, padlite.Finished)
    return last.answer.text


def test_streaming_replying_and_the_event_loop_give_the_same_answer(loaded: padlite.Chat) -> None:
    async def in_a_loop() -> tuple[str, str]:
        pieces = [piece async for piece in loaded.new().astream("How was your day?")]
        return "".join(pieces), (await loaded.new().areply("How was your day?")).text

    answer = loaded.new().reply("How was your day?")
    pieces = list(loaded.new().stream("How was your day?"))
    assert len(pieces) > 3
    assert {"".join(pieces), answer.text, *asyncio.run(in_a_loop())} == {answer.text}
    assert answer.finish_reason == "stop"
    assert answer.usage.completion_tokens == len(answer.trace)


def test_the_command_line_gives_the_same_answer(loaded: padlite.Chat, tmp_path: Path) -> None:
    words = [
        "chat",
        "--no-save",
        "--json",
        "-w",
        "caring=1",
        "-t",
        "0.8",
        "--seed",
        "7",
        "--threads",
        "1",
        "-p",
        "How was your day?",
    ]
    environment = {**os.environ, "HOME": str(tmp_path), "PADLITE_CONFIG_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "padlite", *words], env=environment, capture_output=True, check=True, timeout=60
    )
    chat = loaded.new()
    chat.options = dataclasses.replace(chat.options, temperature=0.8, seed=7)
    assert chat.reply("How was your day?").text == json.loads(done.stdout)["text"]


def test_a_model_without_rewards_has_no_weights_to_set(endless: padlite.Chat) -> None:
    with pytest.raises(UsageError, match="unknown dimension"):
        endless.weights["concise"] = 1
    assert dict(endless.weights) == {}


def test_weights_change_the_answer_and_a_name_that_does_not_exist_is_refused(chat: padlite.Chat) -> None:
    warm = chat.reply("What should I do today?")
    assert warm.changed
    chat.clear()
    chat.weights["caring"] = 0
    assert chat.reply("What should I do today?").text != warm.text
    assert chat.weights == {**dict.fromkeys(chat.weights, 0.0)}
    with pytest.raises(UsageError, match="did you mean 'caring'"):
        chat.weights["carring"] = 1


def test_a_weight_set_in_mid_answer_steers_the_rest(loaded: padlite.Chat) -> None:
    chat = loaded.new(padlite.Profile(threads=1))
    events = chat.events("What should I do today?")
    first = next(events)
    chat.weights["enthusiastic"] = 1.0
    tokens = [event for event in (first, *events) if isinstance(event, padlite.Token)]
    pushes = [float(token.trace.push.max()) for token in tokens]
    assert pushes[0] == 0
    assert pushes[-1] > 0
    assert pushes == sorted(pushes)
    assert pushes.index(max(pushes)) <= 10, "the model may be eight tokens ahead of its reader"


def test_cancelling_from_another_thread_keeps_what_was_said(endless: padlite.Chat) -> None:
    chat = endless.new()
    timer = threading.Timer(0.2, chat.cancel)
    timer.start()
    answer = chat.reply("go on for ever")
    timer.join()
    assert answer.finish_reason == "cancelled"
    assert answer.text
    assert chat.messages[-1].content == answer.text


def test_cancelling_a_long_prefill_frees_the_model_for_others(endless: padlite.Chat) -> None:
    chat = endless.new()
    timer = threading.Timer(0.3, chat.cancel)
    timer.start()
    started = time.monotonic()
    answer = chat.reply("a b c d " * 11_000)
    timer.join()
    assert answer.finish_reason == "cancelled"
    assert answer.usage.completion_tokens == 0
    assert chat.messages == ()
    other = endless.new()
    assert next(other.stream("hello"))
    assert time.monotonic() - started < 30


def test_an_answer_cancelled_while_it_waits_never_begins(endless: padlite.Chat) -> None:
    running, waiting = endless.new(), endless.new()
    pieces = running.stream("go on")
    next(pieces)
    answers: list[padlite.Answer] = []
    thread = threading.Thread(target=lambda: answers.append(waiting.reply("and I?")))
    thread.start()
    while not waiting.position:
        time.sleep(0.01)
    waiting.cancel()
    running.cancel()
    thread.join(30)
    pieces.close()
    assert [answer.usage.completion_tokens for answer in answers] == [0]
    assert waiting.messages == ()


def test_leaving_the_loop_ends_the_answer_and_the_next_question_follows(endless: padlite.Chat) -> None:
    chat = endless.new()
    for number, _ in enumerate(chat.stream("go on")):
        if number == 3:
            break
    assert [message.role for message in chat.messages] == ["user", "assistant"]
    chat.options = dataclasses.replace(chat.options, max_tokens=3)
    assert chat.reply("and now?").finish_reason == "length"


def test_cancelling_the_task_cancels_the_answer(endless: padlite.Chat) -> None:
    chat = endless.new()

    async def leave() -> None:
        task = asyncio.create_task(chat.areply("go on"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert chat.messages[-1].role == "assistant"
    chat.clear()


def test_many_conversations_from_many_threads_get_the_answers_they_would_have_had_alone(loaded: padlite.Chat) -> None:
    questions = ["hi", "What should I do today?", "Do you like music?", "How was your day?", "Who are you?"]

    def talk(question: str) -> list[padlite.Answer]:
        chat = loaded.new()
        return [chat.reply(question), chat.reply("And then?")]

    alone = [talk(question) for question in questions]
    together: dict[int, list[padlite.Answer]] = {}

    def run(number: int) -> None:
        together[number] = talk(questions[number % len(questions)])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(15):
        (first, second), (its_first, its_second) = alone[number % len(questions)], together[number]
        assert _same_but_for_rounding(first, its_first)
        assert first.text != its_first.text or _same_but_for_rounding(second, its_second)


def test_parallel_answers_take_turns_and_are_the_same() -> None:
    questions = ("Do you like music?", "What should I do today?", "How was your day?")
    with padlite.open(WARM, parallel=2) as chat:
        alone = [chat.new().reply(text) for text in questions]

        async def together() -> list[padlite.Answer]:
            return await asyncio.gather(*(chat.new().areply(text) for text in questions))

        for one, other in zip(alone, asyncio.run(together()), strict=True):
            assert _same_but_for_rounding(one, other)


def _same_but_for_rounding(one: padlite.Answer, other: padlite.Answer) -> bool:
    """Tell whether two answers rest on the same scores, as long as they say the same.

    What else is in the cache changes the order of llama.cpp's sums: mostly by less than a tenth of a nat on this model,
    by a third of one where an answer is unlikely, and in time a near tie. Another conversation's scores differ by
    several nats at once.
    """
    for here, there in zip(one.trace, other.trace, strict=False):
        mine = dict(zip(here.trace.candidates.tolist(), here.trace.base_scores, strict=True))
        yours = dict(zip(there.trace.candidates.tolist(), there.trace.base_scores, strict=True))
        shared = mine.keys() & yours.keys()
        if len(shared) < 7 or max(abs(mine[token] - yours[token]) for token in shared) > 1.0:
            return False
        if here.id != there.id:
            break
    return True


def test_a_fork_goes_its_own_way_and_evaluates_only_what_is_new(chat: padlite.Chat) -> None:
    chat.reply("What should I do today?")
    fork = chat.fork()
    assert fork.messages == chat.messages
    fork.weights["caring"] = -1.0
    a, b = chat.reply("Tell me more."), fork.reply("Tell me more.")
    assert b.usage.evaluated_tokens <= 2
    assert a.usage.prompt_tokens == b.usage.prompt_tokens
    assert chat.weights["caring"] == 1.0
    assert a.text != b.text


def test_a_saved_conversation_goes_on_exactly_as_if_it_had_not_been_left(chat: padlite.Chat, tmp_path: Path) -> None:
    chat.reply("How was your day?")
    chat.save(tmp_path / "talk.json")
    assert (tmp_path / "talk.json").stat().st_mode & 0o777 == 0o600
    again = chat.new()
    again.restore(tmp_path / "talk.json")
    assert again.messages == chat.messages
    assert _same_but_for_rounding(again.reply("And tomorrow?"), chat.reply("And tomorrow?"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1, "messages": [{"role": "king"}]}', "[" * 100_000])
def test_a_file_that_is_no_conversation_is_refused(chat: padlite.Chat, tmp_path: Path, content: str) -> None:
    file = tmp_path / "talk.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(StoreError, match=r"talk\.json"):
        chat.restore(file)
    with pytest.raises(NotFoundError):
        chat.restore(tmp_path / "nowhere.json")
    with pytest.raises(StoreError):
        chat.save(tmp_path / "no" / "folder.json")


def test_a_second_answer_on_one_conversation_is_refused_and_the_first_goes_on(endless: padlite.Chat) -> None:
    chat = endless.new()
    first = chat.stream("go on")
    next(first)
    for misuse in (
        lambda: next(chat.stream("me too")),
        lambda: chat.reply("me too"),
        chat.fork,
        chat.undo,
        chat.clear,
        lambda: chat.restore([]),
    ):
        with pytest.raises(UsageError, match="being answered") as caught:
            misuse()
        assert "fork()" in caught.value.remedy
    assert next(first)
    first.close()
    chat.undo()
    assert chat.messages == ()


def test_a_closed_chat_says_so_and_ends_those_that_share_its_model(random_base: Path) -> None:
    profile = padlite.Profile(base=random_base, context_length=20_000, threads=1)
    owner = padlite.open(profile)
    other = owner.new()
    answers: list[padlite.Answer] = []
    thread = threading.Thread(target=lambda: answers.append(other.reply("go on")))
    thread.start()
    time.sleep(0.3)
    owner.close()
    thread.join(30)
    assert [answer.finish_reason for answer in answers] == ["cancelled"]
    for chat in (owner, other):
        with pytest.raises(UsageError, match="closed") as caught:
            chat.reply("hello")
        assert "padlite.open" in caught.value.remedy
        with pytest.raises(UsageError, match="closed"):
            chat.new()
    owner.close()


def test_a_conversation_that_is_closed_leaves_the_others_alone(loaded: padlite.Chat) -> None:
    with loaded.new() as one:
        one.reply("hi")
    with pytest.raises(UsageError, match="closed"):
        one.reply("hi")
    assert loaded.new().reply("hi").text


def _in_a_child(chat: padlite.Chat, results: "multiprocessing.SimpleQueue[str]") -> None:
    try:
        chat.reply("hello")
    except UsageError as error:
        results.put(f"{error.message}|{error.remedy}")
    chat.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_told_to_open_its_own(loaded: padlite.Chat) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    child = context.Process(target=_in_a_child, args=(loaded.new(), results))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert "another process" in results.get()
    assert loaded.new().reply("hi").text


def test_another_conversation_costs_no_second_copy_of_the_weights(loaded: padlite.Chat) -> None:
    loaded.new().reply("hi")
    before = psutil.Process().memory_info().rss
    chats = [loaded.new() for _ in range(50)]
    for chat in chats[:5]:
        chat.reply("hi")
    assert (psutil.Process().memory_info().rss - before) / 2**20 < 100, "fifty copies of the weights take 450 MiB"


def test_signals_logging_and_the_end_of_the_program_stay_the_programs_own(random_base: Path) -> None:
    program = f"""
import logging, signal, sys
def own():
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return handlers, list(logging.getLogger().handlers), sys.excepthook, sys.stdout, sys.stderr
before = own()
import padlite
with padlite.open(model={str(random_base)!r}) as one, padlite.open() as other:
    next(one.stream("go on")), other.reply("hi")
    assert own() == before
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_closing_gives_the_memory_back(random_base: Path) -> None:
    profile = padlite.Profile(base=random_base, context_length=100_000, threads=1)

    def once() -> int:
        with padlite.open(profile) as chat:
            chat.options = dataclasses.replace(chat.options, max_tokens=3)
            chat.reply("hello")
            memory = psutil.Process().memory_info()
            inside = int(memory.rss - memory.shared)  # files that are mapped come and go as the system likes
        del chat
        gc.collect()
        assert "padlite-engine" not in [thread.name for thread in threading.enumerate() if thread not in before]
        return inside

    before = set(threading.enumerate())
    inside = [once() for _ in range(6)]
    growth = (inside[-1] - inside[1]) / 2**20
    assert growth < 20, f"{growth:.0f} MiB more after four more rounds"


def test_a_chat_that_nobody_closes_is_closed_when_nobody_has_it_any_more(random_base: Path) -> None:
    before = set(threading.enumerate())
    chat = padlite.open(padlite.Profile(base=random_base, threads=1))
    fork = chat.new()
    del chat
    gc.collect()
    fork.options = dataclasses.replace(fork.options, max_tokens=2)
    assert fork.reply("still here?").text
    del fork
    gc.collect()
    assert [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()] == []


def test_a_program_that_ends_in_mid_answer_ends_at_once_and_quietly(random_base: Path) -> None:
    program = (
        f"import padlite\nchat = padlite.open(model={str(random_base)!r})\n"
        "pieces = chat.stream('go on')\nprint(len(next(pieces)) > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_what_cannot_be_opened_says_why() -> None:
    with pytest.raises(NotFoundError, match="no-such-model"):
        padlite.open(model="no-such-model")
    with pytest.raises(NotFoundError, match="nobody"):
        padlite.open("nobody")
    with pytest.raises(ProfileError, match="did you mean 'witty'"):
        padlite.open(padlite.Profile(preferences={"wity": 1.0}))
    with pytest.raises(UsageError, match="parallel"):
        padlite.open(parallel=0)


def test_errors_of_an_answer_reach_the_caller_and_the_chat_goes_on(loaded: padlite.Chat) -> None:
    chat = loaded.new()
    with pytest.raises(UsageError, match="empty"):
        chat.reply("  ")
    with pytest.raises(ContextFullError, match="1,024"):
        chat.reply("word " * 5000)
    assert chat.messages == ()
    assert chat.reply("hi").text
    with pytest.raises(ProfileError):
        loaded.new(padlite.Profile(preferences={"rude": 1.0}))
    with pytest.raises(UsageError, match="another model"):
        loaded.new(padlite.Profile(model="other"))


def test_answering_again_replaces_the_answer(loaded: padlite.Chat) -> None:
    chat = loaded.new()
    first = chat.reply("What should I do today?").text
    chat.weights["caring"] = -1.0
    assert _text(list(chat.regenerate())) != first
    assert len(chat.messages) == 2


def test_the_public_names_are_these_and_each_is_documented() -> None:
    assert padlite.__all__ == [
        "Answer", "Chat", "DecodingOptions", "Dropped", "Event", "FinishReason", "Finished", "Message", "PadliteError",
        "Profile", "Token", "open",
    ]  # fmt: skip
    assert padlite.__all__ == sorted(padlite.__all__)
    undocumented = [name for name in padlite.__all__ if name != "Event" and not getattr(padlite, name).__doc__]
    assert undocumented == []
    assert set(padlite.__all__) <= set(dir(padlite))
    with pytest.raises(AttributeError, match="nothing"):
        padlite.nothing  # noqa: B018


def test_two_readers_in_two_event_loops_do_not_disturb_each_other(loaded: padlite.Chat) -> None:
    texts: list[str] = []

    def loop() -> None:
        async def read() -> None:
            async with contextlib.aclosing(loaded.new().astream("How was your day?")) as pieces:
                texts.append("".join([piece async for piece in pieces]))

        asyncio.run(read())

    threads = [threading.Thread(target=loop) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(texts) == 3
    assert len(set(texts)) == 1


def test_sentences_of_a_profile_steer_conversations_that_are_answered_in_turns() -> None:
    questions = ("How are you?", "Do you like dogs?")
    formal = dataclasses.replace(WARM, sentences={"formal": Sentence(text="Be professional.", weight=3.0)})
    with padlite.open(formal, parallel=2) as chat:
        alone = [chat.new().reply(text) for text in questions]
        plain = chat.new(WARM).reply(questions[0])

        async def together() -> list[padlite.Answer]:
            return await asyncio.gather(*(chat.new().areply(text) for text in questions))

        for one, other in zip(alone, asyncio.run(together()), strict=True):
            assert _same_but_for_rounding(one, other)
        assert plain.text != alone[0].text
        fork = chat.new()
        fork.weights["formal"] = 0.0
        assert _same_but_for_rounding(fork.reply(questions[0]), plain)
    with padlite.open(WARM) as chat, pytest.raises(UsageError, match="room for 0"):
        chat.new(formal)
