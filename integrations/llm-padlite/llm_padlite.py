"""padlite's models for `llm`: ``padlite``, and ``padlite@NAME`` for each of the person's profiles.

A model is opened when it is first used, and stays open for the process. Knows llm and padlite's Python API.
"""

import dataclasses
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Protocol

import click
import llm
from llm.parts import TextPart
from pydantic import Field

import padlite
from padlite.profile import chosen_profile, list_profiles


class PadliteFailed(llm.ModelError, click.ClickException):
    """What went wrong and what to do, as `llm` shows it: one line, no traceback."""

    def __init__(self, error: padlite.PadliteError) -> None:
        click.ClickException.__init__(self, f"{error.message} (try: {error.remedy})" if error.remedy else error.message)


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register the models."""
    for name in (None, *list_profiles()):
        shared = Shared(name)
        register(Padlite(shared), AsyncPadlite(shared))


class Shared:
    """One person's profile and its loaded model, opened once for all that is asked of it."""

    def __init__(self, profile: str | None) -> None:
        self.profile = profile
        self.model_id = "padlite" if profile is None else f"padlite@{profile}"
        self._lock = threading.Lock()
        self._first: padlite.Chat | None = None

    def conversation(self, prompt: llm.Prompt) -> tuple[padlite.Chat, str]:
        """Return a new conversation that holds what was said before, and what is said now."""
        with self._lock:
            if self._first is None:
                self._first = padlite.open(chosen_profile(self.profile))
        chat = self._first.new()
        messages = [_message(message) for message in prompt.messages]
        leading = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
        chat.system = "\n\n".join(filter(None, [chat.system, *(message.content for message in messages[:leading])]))
        chat.restore(messages[leading:-1])
        given = prompt.options.model_dump(exclude_none=True)
        chat.weights.update(weights_in(given.pop("weights", "")))
        chat.options = dataclasses.replace(chat.options, **given)
        return chat, messages[-1].content


def weights_in(text: str) -> dict[str, float]:
    """Return the weights in *text*, like ``caring=1 witty=-0.3``. Raises ModelError for anything else."""
    weights: dict[str, float] = {}
    for word in text.replace(",", " ").split():
        name, equals, value = word.partition("=")
        try:
            weights[name] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            remedy = '-o weights "caring=1 witty=-0.3"'
            raise PadliteFailed(padlite.PadliteError(f"weights: {word!r} is no dimension=number", remedy=remedy))
    return weights


def _message(message: llm.Message) -> padlite.Message:
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    if len(texts) < len(message.parts):
        raise PadliteFailed(padlite.PadliteError("padlite reads text only", remedy="leave tools and attachments out"))
    return padlite.Message(role=message.role, content="".join(texts))


class _Options(llm.Options):
    """What can be set for one prompt; what isn't is as the profile has it."""

    weights: str | None = Field(default=None, description='How much of each dimension: "caring=1 witty=-0.3"')
    strength: float | None = Field(default=None, description="How hard the preferences push; 0 is the plain model")
    candidates: int | None = Field(default=None, description="Among how many next tokens the preferences choose")
    temperature: float | None = Field(default=None, description="0 always takes the best")
    top_p: float | None = Field(default=None, description="The share of probability that is sampled from")
    seed: int | None = Field(default=None, description="The same seed repeats an answer")
    max_tokens: int | None = Field(default=None, description="The longest answer, in tokens")


class _Response(Protocol):
    def set_usage(self, *, input: int | None = None, output: int | None = None) -> None: ...  # noqa: A002


class _Heard:
    """Turns events into text, and the last one into what `llm` keeps of an answer."""

    def __init__(self, response: _Response) -> None:
        self._response, self._length = response, 0

    def text(self, event: padlite.Event) -> str:
        """Return the text that *event* adds."""
        if isinstance(event, padlite.Finished):
            usage = event.answer.usage
            self._response.set_usage(input=usage.prompt_tokens, output=usage.completion_tokens)
            return event.answer.text[self._length :]
        text = event.text if isinstance(event, padlite.Token) else ""
        self._length += len(text)
        return text


class Padlite(llm.Model):
    """padlite as a model of `llm`."""

    can_stream = True
    Options = _Options  # type: ignore[assignment]

    def __init__(self, shared: Shared) -> None:
        self._shared, self.model_id = shared, shared.model_id

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        """Yield the answer, piece by piece."""
        heard = _Heard(response)
        try:
            chat, text = self._shared.conversation(prompt)
            for event in chat.events(text):
                if piece := heard.text(event):
                    yield piece
        except padlite.PadliteError as error:
            raise PadliteFailed(error) from error


class AsyncPadlite(llm.AsyncModel):
    """The same for programs with an event loop."""

    can_stream = True
    Options = _Options  # type: ignore[assignment]

    def __init__(self, shared: Shared) -> None:
        self._shared, self.model_id = shared, shared.model_id

    async def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.AsyncResponse, conversation: llm.AsyncConversation | None
    ) -> AsyncGenerator[str, None]:
        """Yield the answer, piece by piece."""
        heard = _Heard(response)
        try:
            chat, text = self._shared.conversation(prompt)
            async for event in chat.aevents(text):
                if piece := heard.text(event):
                    yield piece
        except padlite.PadliteError as error:
            raise PadliteFailed(error) from error
