"""The paper's reward model: a language model of its own, told the preference in its prompt, judges the candidates.

    φ(s, a) = log p_RM(a | s, preference) − log p_base(a | s)          over the k candidates (PAD, docs/paper-map.md)

It reads the same conversation as the base model, in which the first message is put into `PROMPT` together with the
preference text. Shapes: k candidates. Knows no file and no library; a reward LM with another tokenizer than the base's
is asked through `padlite.bridge`.
"""

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from padlite.prompt import prompt_tokens
from padlite.scoring import pad_rewards
from padlite.seams import Dimension, FloatArray, Message, Step, TokenArray, Tokenizer
from padlite.template import ChatTemplate

PROMPT = (
    "[Guidelines] Your task is to generate response by considering the following principle. "
    "[Principles] {preference} [Instruction] {message}"
)
"""What PAD's reward model is told (its README); the first message takes this form, the others stay as they are."""

SPARE_TOKENS = 8  # text around a message may be cut into tokens a little differently in another place


class ScoringLm(Protocol):
    """A language model that holds one text and scores what may come next."""

    @property
    def context_length(self) -> int:
        """Tokens that fit."""
        ...

    @property
    def cached_tokens(self) -> int:
        """How many of the tokens it was given it holds."""
        ...

    def advance(self, tokens: Sequence[int], *, keep: int) -> None:
        """Begin to evaluate *tokens* after the first *keep* it holds, if it can do so in the background."""
        ...

    def scores(
        self, tokens: Sequence[int], candidates: TokenArray, *, keep: int, cancelled: Callable[[], bool] | None = None
    ) -> FloatArray:
        """Return the score (k,) of each of *candidates* after the first *keep* tokens it holds and then *tokens*."""
        ...


class HeldText:
    """The tokens that a reward LM holds: whatever is asked next, only what it lacks is evaluated."""

    def __init__(self, lm: ScoringLm) -> None:
        self._lm = lm
        self._tokens: list[int] = []

    def advance(self, token: int, *, after: int) -> None:
        """Begin to evaluate *token* after the *after* tokens that were asked for last, unless some of them are lacking.

        What is held stays the same until scores are asked for.
        """
        if len(self._tokens) == after:
            self._lm.advance([token], keep=after)

    def scores(
        self, tokens: Sequence[int], candidates: TokenArray, *, same: int, cancelled: Callable[[], bool]
    ) -> FloatArray:
        """Return the scores (k,) of *candidates* after *tokens* (at least one).

        The first *same* tokens are known to be those held already, so they aren't compared again.
        """
        keep = min(same, len(self._tokens), len(tokens) - 1)
        most = min(len(self._tokens), len(tokens) - 1)
        while keep < most and self._tokens[keep] == tokens[keep]:
            keep += 1
        del self._tokens[keep:]
        try:
            scores = self._lm.scores(tokens[keep:], candidates, keep=keep, cancelled=cancelled)
        except BaseException:
            self._tokens = list(tokens[: self._lm.cached_tokens])  # as far as it came
            raise
        self._tokens.extend(tokens[keep:])
        return scores


class LmReward:
    """A reward LM with the base's own tokenizer, for one conversation (`RewardModel` in `padlite.seams`).

    *preference* is what it is told to prefer, *prompt* the form in which; *base_context_length* in tokens.
    """

    def __init__(
        self,
        lm: ScoringLm,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        dimension: Dimension,
        preference: str,
        prompt: str = PROMPT,
        base_context_length: int = 0,
    ) -> None:
        self.dimensions: tuple[Dimension, ...] = (dimension,)
        self._tokenizer, self._template = tokenizer, template
        self._preference, self._form = preference, prompt
        self._held = HeldText(lm)
        self._shorter_by = max(0, base_context_length - lm.context_length)
        self.begin([], [], lambda: False)

    @property
    def reserved_tokens(self) -> int:
        """How much longer than the base's prompt its own is, at most, and by how much its context is shorter."""
        said = [Message(role="user", content="Hello.")]
        own = prompt_tokens(self._template, self._tokenizer, asked(said, self._form, self._preference))
        return len(own) - len(prompt_tokens(self._template, self._tokenizer, said)) + SPARE_TOKENS + self._shorter_by

    def begin(self, messages: Sequence[Message], prompt: Sequence[int], cancelled: Callable[[], bool]) -> None:
        """Note that an answer to *messages* begins; its prompt is made when the first candidates come."""
        self._messages, self._prompt_size, self._cancelled = tuple(messages), len(prompt), cancelled
        self._tokens: list[int] = []
        self._answered = 0

    def advance(self, context: Sequence[int], weights: FloatArray) -> None:
        """Begin to evaluate the last token of *context* in the background, if the text before it is held."""
        if self._tokens and len(context) == self._prompt_size + self._answered + 1:
            self._held.advance(context[-1], after=len(self._tokens))

    def features(self, step: Step) -> FloatArray:
        """Return the reward of each candidate, (k, 1)."""
        same = len(self._tokens)
        if not self._tokens:
            asking = asked(self._messages, self._form, self._preference)
            self._tokens = prompt_tokens(self._template, self._tokenizer, asking)
        self._tokens.extend(step.context[self._prompt_size + self._answered :])
        self._answered = len(step.context) - self._prompt_size
        scores = self._held.scores(self._tokens, step.candidates, same=same, cancelled=self._cancelled)
        return pad_rewards(scores, step.base_logits)


def asked(messages: Sequence[Message], prompt: str, preference: str) -> list[Message]:
    """Return *messages* with the first one of the person's put into the form *prompt*, which holds two fields."""
    first = next((at for at, message in enumerate(messages) if message.role == "user"), None)
    if first is None:
        return list(messages)
    words = {"{preference}": preference, "{message}": messages[first].content}
    content = re.sub(r"\{preference\}|\{message\}", lambda field: words[field.group()], prompt)
    return [*messages[:first], Message(role="user", content=content), *messages[first + 1 :]]
