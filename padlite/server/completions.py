"""POST /v1/chat/completions: from a request to its answers, and what happens when the client leaves meanwhile.

An answer is decoded whether or not the client keeps up with reading it; who leaves ends it. Knows the shelf and the
wire; knows no sockets.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import TypeAlias

from starlette.responses import JSONResponse
from starlette.types import Message as AsgiMessage
from starlette.types import Receive, Scope, Send

from padlite.chat import Chat
from padlite.errors import PadliteError
from padlite.profile import Profile
from padlite.server.answers import DONE, REASONS, Writer, trace_of
from padlite.server.failures import ApiError, Json, explained, stopping
from padlite.server.metrics import Metrics
from padlite.server.requests import ChatRequest
from padlite.server.shelf import Shelf
from padlite.session import Answer, Event, Finished, FinishReason, Token

TELL_POSITION_S = 1.0  # who waits in line is told where, so often
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


_Groups: TypeAlias = AsyncGenerator[Sequence[Event], None]


class Completions:
    """Answers chat completions on the models of *shelf*."""

    def __init__(self, shelf: Shelf, metrics: Metrics) -> None:
        self._shelf, self._metrics = shelf, metrics
        self._chats: set[Chat] = set()
        self.stopping: bool = False

    def stop(self) -> None:
        """End every answer that is being decoded or waits, and take no more."""
        self.stopping = True
        for chat in tuple(self._chats):
            chat.cancel()

    async def answer(self, request: ChatRequest, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer *request*. Raises ApiError as long as nothing was sent."""
        if self.stopping:
            raise stopping()
        model, profile_name = self._named(request)
        profile = self._shelf.profile(model, profile_name)
        client = (scope.get("client") or ("",))[0]
        async with self._shelf.model(model) as owner:
            chats = [
                await asyncio.to_thread(self._chat, owner, request, profile, client, number)
                for number in range(request.choices)
            ]  # in a thread: a text of the profile that is new waits for the model
            await asyncio.to_thread(chats[0].require_room)
            with self._counted(chats):
                exchange = _Exchange(request, chats, self._metrics)
                await exchange.run(receive, send)

    def _named(self, request: ChatRequest) -> tuple[str, str | None]:
        """Return the model and the profile that the request names, in its model or on its own."""
        if request.model in self._shelf.models:
            return request.model, request.profile
        model, at, name = request.model.rpartition("@")
        if not at:
            return request.model, request.profile
        if request.profile is not None and request.profile != name:
            raise ApiError(400, "model and padlite.profile name two profiles", parameter="padlite.profile")
        return model, name

    def _prepared(self, owner: Chat, request: ChatRequest, profile: Profile, client: str) -> list[Chat]:
        """Return a conversation for each choice; a new preference text waits for the engine, so in a thread."""
        chats = [self._chat(owner, request, profile, client, number) for number in range(request.choices)]
        chats[0].require_room()
        return chats

    def _chat(self, owner: Chat, request: ChatRequest, profile: Profile, client: str, number: int) -> Chat:
        """Return a conversation that says what the request says, for its choice *number*."""
        chat = owner.new(profile, client=client)
        chat.system = "\n\n".join(filter(None, [profile.system_text(), *request.system]))
        chat.restore(request.messages)
        chat.weights.update(request.weights)
        options = dataclasses.replace(
            chat.options,
            **request.decoding,
            frequency_penalty=request.frequency_penalty,
            presence_penalty=request.presence_penalty,
            logit_bias=request.logit_bias,
            grammar=request.grammar,
        )
        if number and options.seed is not None:
            options = dataclasses.replace(options, seed=(options.seed + number) % 2**64)
        if request.logprobs is not None and request.logprobs > options.candidates:
            raise ApiError(
                400,
                f"top_logprobs is {request.logprobs}, but only {options.candidates} candidates are looked at: "
                "ask for more with padlite.candidates",
                parameter="top_logprobs",
            )
        chat.options = options
        return chat

    @contextlib.contextmanager
    def _counted(self, chats: list[Chat]) -> Iterator[None]:
        """Know *chats* meanwhile, to cancel them when the server stops."""
        self._chats.update(chats)
        try:
            yield
        finally:
            self._chats.difference_update(chats)


class _Exchange:
    """One request being answered: its choices one after the other, so that others get their turn between them."""

    def __init__(self, request: ChatRequest, chats: list[Chat], metrics: Metrics) -> None:
        self._request, self._chats, self._metrics = request, chats, metrics
        self._writer = Writer(request)
        self._left = False
        self._begun = False

    async def run(self, receive: Receive, send: Send) -> None:
        """Answer, while somebody listens for the client's leaving."""
        listener = asyncio.create_task(self._listen(receive))
        try:
            if self._request.stream:
                await self._stream(send)
            else:
                await self._whole(receive, send)
        finally:
            listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listener

    def _gone(self) -> bool:
        """Tell whether the client has left; a call, as it may happen at any `await`."""
        return self._left

    async def _listen(self, receive: Receive) -> None:
        """Cancel the answers when the client leaves."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._left = True
        for chat in self._chats:
            chat.cancel()

    async def _whole(self, receive: Receive, send: Send) -> None:
        answers: list[Answer] = []
        for chat in self._chats:
            answer = await self._answer(chat)
            if answer is None:
                return
            answers.append(answer)
        self._metrics.answered(answers)
        record = self._writer.whole(self._chats[0], answers)
        await JSONResponse(record)({"type": "http"}, receive, send)

    async def _answer(self, chat: Chat) -> Answer | None:
        """Return the whole answer of one choice; None if the client has left."""
        answer: Answer | None = None
        if not self._gone():
            async with _explained(chat.aregenerate_in_groups()) as groups:
                async for events in groups:
                    answer = next((each.answer for each in events if isinstance(each, Finished)), None)
        if self._gone():
            self._metrics.cancelled += 1
            return None
        if answer is None or answer.finish_reason is FinishReason.CANCELLED:
            raise stopping()
        return answer

    async def _stream(self, send: Send) -> None:
        answers: list[Answer] = []
        try:
            for index, chat in enumerate(self._chats):
                answer = await self._stream_choice(index, chat, send)
                if answer is None:
                    return
                answers.append(answer)
        except ApiError as error:
            if not self._begun:
                raise
            await self._send(send, self._writer.error(error) + DONE)
        else:
            self._metrics.answered(answers)
            last = self._writer.usage_chunk(answers) if self._request.with_usage else b""
            await self._send(send, last + DONE)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream_choice(self, index: int, chat: Chat, send: Send) -> Answer | None:
        """Stream one choice and return its answer; None if the client has left."""
        if self._gone():
            return None
        choice = _Choice(self._writer, index, chat, self._request)
        async with _explained(chat.aregenerate_in_groups()) as groups:
            first = await self._first(groups, chat, send)
            if not self._gone():
                await self._send(send, choice.opening() + choice.take(first))
                async for events in groups:
                    if self._gone():
                        break
                    data = choice.take(events)
                    if data:
                        await self._send(send, data)
        if self._gone():
            self._metrics.cancelled += 1
            return None
        if choice.answer is None or choice.answer.finish_reason is FinishReason.CANCELLED:
            raise stopping()
        return choice.answer

    async def _first(self, groups: _Groups, chat: Chat, send: Send) -> Sequence[Event]:
        """Return the first events; who has to wait for them in line is told where, as a comment in the stream."""
        waiting = asyncio.ensure_future(anext(groups, ()))
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=TELL_POSITION_S)
                if not waiting.done() and chat.position and not self._gone():
                    await self._send(send, b": position %d in the queue\n\n" % chat.position)
            return waiting.result()
        finally:
            if not waiting.done():
                chat.cancel()
                with contextlib.suppress(PadliteError):
                    await waiting

    async def _send(self, send: Send, data: bytes) -> None:
        """Send *data*, with the headers before the first of it."""
        if not self._begun:
            self._begun = True
            start: AsgiMessage = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
            await send(start)
        if data:
            await send({"type": "http.response.body", "body": data, "more_body": True})


class _Choice:
    """One choice as a stream: text as it comes, the log-probabilities of tokens with the text that they became."""

    def __init__(self, writer: Writer, index: int, chat: Chat, request: ChatRequest) -> None:
        self._writer, self._index, self._chat, self._request = writer, index, chat, request
        self._pending: list[Token] = []
        self._heard = 0
        self.answer: Answer | None = None

    def opening(self) -> bytes:
        """Return the chunk that says who speaks, and with a trace what that one wishes."""
        own: Json | None = {"weights": dict(self._chat.weights)} if self._request.trace else None
        return self._writer.chunk(self._index, {"role": "assistant", "content": "", "refusal": None}, own=own)

    def take(self, events: Sequence[Event]) -> bytes:
        """Return the chunks that *events* make; none while text is held back."""
        text, finish = "", b""
        for event in events:
            if isinstance(event, Token):
                self._pending.append(event)
                text += event.text
            elif isinstance(event, Finished):
                self.answer = event.answer
                text += event.answer.text[self._heard + len(text) :]
                reason = REASONS.get(event.answer.finish_reason)
                finish = self._writer.chunk(self._index, {}, finish=reason) if reason else b""
        return self._released(text) + finish

    def _released(self, text: str) -> bytes:
        if not text:
            return b""
        self._heard += len(text)
        tokens, self._pending = self._pending, []
        own: Json | None = {"trace": [trace_of(self._chat, each) for each in tokens]} if self._request.trace else None
        entries = self._writer.entries(self._chat, tokens)
        return self._writer.chunk(self._index, {"content": text}, entries=entries, own=own)


@contextlib.asynccontextmanager
async def _explained(groups: _Groups) -> AsyncIterator[_Groups]:
    """Close *groups* in the end, and turn padlite's errors into the client's."""
    try:
        async with contextlib.aclosing(groups):
            yield groups
    except PadliteError as error:
        raise explained(error) from error
