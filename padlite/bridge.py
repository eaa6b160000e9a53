"""A reward LM whose tokenizer differs from the base's: the bridge maps text, not ids.

A candidate is judged by the probability of the text that it makes, under the reward LM's own tokenization:

    score(a) = log p_RM(tokens of the answer with a appended)          up to a constant that all candidates share

The tokens that all of these tokenizations begin with cancel, so what is computed is a small tree of chains behind
them: mostly one row of log-probabilities. Rules for the odd candidates:

- text that merges with the text before it changes tokens there: they belong to its chain, and to all others' chains;
- a character that isn't finished is tokenized by itself, as bytes, until it is;
- an end token is the end token of the reward LM;
- what has no text (other control tokens), or none that the reward LM has tokens for, gets the reward 0 and is left
  out of the comparison.

Shapes: k candidates. Knows no file and no library.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from padlite.prompt import prompt_tokens
from padlite.retokenizing import ContinuingTokenizer, Retokenized
from padlite.reward_lm import PROMPT, SPARE_TOKENS, HeldText, ScoringLm, asked
from padlite.scoring import pad_rewards
from padlite.seams import Dimension, FloatArray, Message, PromptTokenizer, Step, Tokenizer
from padlite.template import ChatTemplate

_DENSER = 1.1  # how much longer than the sample's its tokens of ordinary text may be


class OwnTokenizer(PromptTokenizer, ContinuingTokenizer, Protocol):
    """A reward LM's own tokenizer: for its prompt, and for the answer that goes on from there."""

    def end(self, template: ChatTemplate) -> int | None:
        """Return the token that ends an answer in *template*, or None if none does."""
        ...


class BridgedReward:
    """A reward LM with another tokenizer than the base's, for one conversation (`RewardModel` in `padlite.seams`).

    *lm* gives log-probabilities of *own*'s tokens; *template*, *preference* and *prompt* as for `LmReward`.
    """

    def __init__(
        self,
        lm: ScoringLm,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        own: OwnTokenizer,
        dimension: Dimension,
        preference: str,
        prompt: str = PROMPT,
        base_context_length: int = 0,
    ) -> None:
        self.dimensions: tuple[Dimension, ...] = (dimension,)
        self._lm, self._tokenizer, self._own, self._template = lm, tokenizer, own, template
        self._preference, self._form, self._base_context_length = preference, prompt, base_context_length
        self._held, self._end = HeldText(lm), own.end(template)
        self.begin([], [], lambda: False)

    @property
    def reserved_tokens(self) -> int:
        """What of the base's context can't be used, as its text in the reward LM's tokens wouldn't fit there.

        Estimated from an ordinary text; a text that is denser yet ends the answer when the reward LM is full.
        """
        said = [Message(role="user", content="Hello.")]
        spent = len(self._prompt(said)) + SPARE_TOKENS
        ratio = len(self._own.continued(PROMPT)) / max(1, len(self._tokenizer.encode(PROMPT, special=False)))
        room = int((self._lm.context_length - spent) / (_DENSER * ratio))
        return max(0, self._base_context_length - room)

    def begin(self, messages: Sequence[Message], prompt: Sequence[int], cancelled: Callable[[], bool]) -> None:
        """Note that an answer to *messages* begins; its prompt is made when the first candidates come."""
        self._messages, self._prompt_size, self._cancelled = tuple(messages), len(prompt), cancelled
        self._answer = Retokenized(self._own)
        self._answered = 0
        self._tokens: list[int] = []  # the prompt's, the answer's settled ones, and those of the chain being scored
        self._settled = 0  # how many of these stay
        self._same = 0  # how many are surely held already

    def advance(self, context: Sequence[int], weights: FloatArray) -> None:
        """Do nothing: what it evaluates depends on the candidates."""

    def features(self, step: Step) -> FloatArray:
        """Return the reward of each candidate, (k, 1)."""
        self._follow(step.context)
        now = self._answer.end()
        chains = [self._chain(int(candidate), now) for candidate in step.candidates]
        readable = [at for at, chain in enumerate(chains) if chain is not None]
        features = np.zeros((len(chains), 1), dtype=np.float32)
        if readable:
            scores = self._scores([chain for chain in chains if chain is not None])
            features[readable] = pad_rewards(scores, step.base_logits[readable])
        return features

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        texts = [replace(message, tokens=()) for message in messages]  # those tokens are the base's
        return prompt_tokens(self._template, self._own, asked(texts, self._form, self._preference))

    def _follow(self, context: Sequence[int]) -> None:
        """Append what the base's *context* has more than it had."""
        if not self._tokens:
            self._tokens = self._prompt(self._messages)
            self._settled = len(self._tokens)
        del self._tokens[self._settled :]
        for token in context[self._prompt_size + self._answered :]:
            self._tokens += self._answer.feed(self._tokenizer.piece(token))
        self._settled, self._answered = len(self._tokens), len(context) - self._prompt_size

    def _chain(self, candidate: int, now: list[int]) -> list[int] | None:
        """Return the tokens of the answer with *candidate* after the settled ones, None if it can't be read.

        *now* are those without it.
        """
        piece = self._tokenizer.piece(candidate)
        if piece:
            chain = self._answer.end_with(piece)
            return chain if chain and chain != now else None
        is_end = self._end is not None and self._tokenizer.is_end(candidate)
        return [*now, self._end] if is_end and self._end is not None else None

    def _scores(self, chains: Sequence[list[int]]) -> FloatArray:
        """Return log p of each of *chains* after the settled tokens, less what they have in common."""
        shared = _shared(chains)
        self._tokens += chains[0][:shared]
        scores = np.zeros(len(chains), dtype=np.float32)
        self._walk(chains, list(range(len(chains))), shared, np.float32(0), scores)
        self._same = self._settled
        return scores

    def _walk(
        self, chains: Sequence[list[int]], members: list[int], depth: int, before: np.float32, scores: FloatArray
    ) -> None:
        """Score those of *chains* that go on from what is held, their first *depth* tokens, at log p *before*."""
        following: dict[int, list[int]] = {}
        for member in reversed(members):  # the base's best last: what it needs is then held for the next token
            following.setdefault(chains[member][depth], []).append(member)
        candidates = np.fromiter(following, dtype=np.int64, count=len(following))
        row = before + self._held.scores(self._tokens, candidates, same=self._same, cancelled=self._cancelled)
        for (token, those), score in zip(following.items(), row, strict=True):
            scores[those] = score  # of chains that go on, overwritten below
            longer = sorted(member for member in those if len(chains[member]) > depth + 1)
            if longer:
                self._tokens.append(token)
                self._walk(chains, longer, depth + 1, score, scores)
                self._tokens.pop()


def _shared(chains: Sequence[list[int]]) -> int:
    """Return how many tokens all of *chains* begin with, so that each has one more at least."""
    shortest = min(len(chain) for chain in chains) - 1
    first = chains[0]
    for depth in range(shortest):
        if any(chain[depth] != first[depth] for chain in chains):
            return depth
    return max(0, shortest)
