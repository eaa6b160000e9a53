"""From a conversation and a known answer to token ids, the way the answer would have been generated token by token.

Knows the model only through its tokenizer and its chat template.
"""

from collections.abc import Sequence

from padlite.prompt import prompt_tokens
from padlite.seams import Message, Tokenizer
from padlite.template import ChatTemplate

_SAMPLE = (Message(role="user", content="Hello."), Message(role="assistant", content="Hi."))


class Completions:
    """Prompts and answers of one base model as token ids."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._template, self._tokenizer = template, tokenizer
        self.end = _end_token(template, tokenizer)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of *messages* up to where the answer begins."""
        return prompt_tokens(self._template, self._tokenizer, messages)

    def answer(self, text: str) -> list[int]:
        """Return the ids of the answer *text*, with the token that ends it where the model has one."""
        return [*self._tokenizer.encode(text, special=False), *self.end]


def _end_token(template: ChatTemplate, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the token with which *template* closes an answer, if *tokenizer* takes it for an end; else nothing."""
    segments = template.render(_SAMPLE, add_generation_prompt=False)
    owners = [segment.message for segment in segments]
    last = len(owners) - 1 - owners[::-1].index(1) if 1 in owners else len(owners)
    closing = "".join(segment.text for segment in segments[last + 1 :]).lstrip()
    first = tokenizer.encode(closing, special=True)[:1]
    return tuple(token for token in first if tokenizer.is_end(token))
