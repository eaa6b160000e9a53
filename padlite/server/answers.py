"""What a chat completion looks like on the wire: whole, or as server-sent events. Knows answers; sends nothing.

A log-probability is the guided model's: the base's over the whole vocabulary, what it gives to all candidates together
shared among them anew by the rewards. Without rewards it is the base's own, exactly.
"""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from padlite.chat import Chat
from padlite.decode import TokenTrace
from padlite.seams import FloatArray
from padlite.server.failures import ApiError, Json
from padlite.server.requests import ChatRequest
from padlite.session import Answer, FinishReason, Token

_as_json = json.JSONEncoder(ensure_ascii=False).encode  # made once: `json.dumps` would make one for every event
DONE = b"data: [DONE]\n\n"
REASONS = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length", FinishReason.CONTEXT: "length"}


def guided_logprobs(trace: TokenTrace) -> FloatArray:
    """Return the log-probability of each candidate under the guided model, (k,), in nats.

    The candidates share anew what the base gives them all together, and every other token keeps what it has: rewards
    say which candidate is better than another, and what a head adds to all of them alike means nothing.
    """
    pushed = trace.base_scores + trace.contributions.sum(axis=1)
    moved = np.logaddexp.reduce(trace.base_scores) - np.logaddexp.reduce(pushed)
    return np.asarray(pushed + moved, dtype=np.float32)


def event(record: Json) -> bytes:
    """Return *record* as one server-sent event."""
    return b"data: " + _as_json(record).encode("utf-8", "replace") + b"\n\n"


def usage_of(answers: Sequence[Answer]) -> Json:
    """Return what *answers*, choices for one prompt, used."""
    prompt = answers[0].usage.prompt_tokens if answers else 0
    completion = sum(answer.usage.completion_tokens for answer in answers)
    cached = prompt - answers[0].usage.evaluated_tokens if answers else 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": max(0, cached)},
    }


@dataclass(slots=True)
class Writer:
    """Writes the parts of one completion."""

    request: ChatRequest
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, chat: Chat, answers: Sequence[Answer]) -> Json:
        """Return the completion with all *answers*."""
        choices: list[Json] = []
        for index, answer in enumerate(answers):
            entries = self.entries(chat, _shown(answer))
            choice: Json = {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": {"content": entries, "refusal": None} if entries is not None else None,
                "finish_reason": REASONS[answer.finish_reason],
            }
            if self.request.trace:
                choice["padlite"] = {
                    "weights": dict(chat.weights),
                    "trace": [trace_of(chat, token) for token in answer.trace],
                    "seed": answer.seed,
                }
            choices.append(choice)
        return {**self._head("chat.completion"), "choices": choices, "usage": usage_of(answers)}

    def chunk(
        self,
        index: int,
        delta: Json,
        *,
        finish: str | None = None,
        entries: list[Json] | None = None,
        own: Json | None = None,
    ) -> bytes:
        """Return one chunk of choice *index*; *own* is what padlite adds to it."""
        choice: Json = {
            "index": index,
            "delta": delta,
            "logprobs": {"content": entries, "refusal": None} if entries is not None else None,
            "finish_reason": finish,
        }
        if own:
            choice["padlite"] = own
        record = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return event({**record, "usage": None} if self.request.with_usage else record)

    def usage_chunk(self, answers: Sequence[Answer]) -> bytes:
        """Return the chunk that says what was used."""
        return event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage_of(answers)})

    def error(self, error: ApiError) -> bytes:
        """Return an error as an event, for an answer that has begun."""
        return event(error.body)

    def entries(self, chat: Chat, tokens: Sequence[Token]) -> list[Json] | None:
        """Return the log-probabilities of *tokens*, or None if nobody asked for any."""
        top = self.request.logprobs
        return None if top is None else [_entry(chat, token, top) for token in tokens]

    def _head(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.request.model,
            "system_fingerprint": None,
        }


def _shown(answer: Answer) -> Sequence[Token]:
    """Return the tokens whose text is in the answer: those of a stop string are not."""
    length, shown = 0, list[Token]()
    pending: list[Token] = []
    for token in answer.trace:
        pending.append(token)
        if token.text:
            shown += pending
            pending = []
            length += len(token.text)
    return shown if length >= len(answer.text) else list(answer.trace)


def _entry(chat: Chat, token: Token, top: int) -> Json:
    logprobs = guided_logprobs(token.trace)
    best = np.argsort(-logprobs, kind="stable")[:top]
    return {
        **_one(chat, token.id, float(logprobs[token.trace.chosen])),
        "top_logprobs": [_one(chat, int(token.trace.candidates[at]), float(logprobs[at])) for at in best],
    }


def _one(chat: Chat, token: int, logprob: float) -> Json:
    data = chat.token_bytes(token)
    return {"token": data.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(data)}


def trace_of(chat: Chat, token: Token) -> Json:
    """Return why *token* was chosen: candidates, and what each dimension added to them, in nats."""
    trace, names = token.trace, [dimension.name for dimension in chat.dimensions]
    strongest = trace.strongest_dimension
    contributions = trace.contributions
    return {
        "id": token.id,
        "text": token.text,
        "changed": bool(trace.changed),
        "changed_by": None if strongest is None else names[strongest],
        "chosen": trace.chosen,
        "base_choice": trace.base_choice,
        "candidates": [
            {
                "id": int(candidate),
                "text": chat.describe_token(int(candidate)),
                "base_logprob": round(float(trace.base_scores[at]), 6),
                "contributions": {name: round(float(contributions[at, m]), 6) for m, name in enumerate(names)},
            }
            for at, candidate in enumerate(trace.candidates)
        ],
    }
