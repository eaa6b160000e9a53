"""The contrast reward: the base model with a preference sentence in its prompt against the base model without it.

    φ_i(s, a) = log p_base(a | s, sentence_i) − log p_base(a | s)          over the k candidates

No reward model is needed, only a chat template: each sentence has a sequence of its own in the same engine, which costs
about one more evaluation a token. It is PAD's released rule with the base itself, told what is wanted, as the reward
model; Linear Alignment, context steering, classifier-free guidance and others are settings of it (docs/paper-map.md).
Shapes: V vocabulary, k candidates, m sentences. Knows no file, no profile and no engine but through its protocol.
"""

from collections.abc import Callable, Sequence

import numpy as np

from padlite.errors import BackendError, UsageError
from padlite.prompt import prompt_tokens
from padlite.scoring import pad_rewards
from padlite.seams import Dimension, FloatArray, Message, Step, Tokenizer
from padlite.streams import Streams
from padlite.template import ChatTemplate

_SPARE_TOKENS = 8  # text around a sentence may be cut into tokens a little differently in another place
_BEHIND = -2  # a sequence that has to be prefilled first


class SentencePlace:
    """Where a template takes a preference sentence: in the system message, else at the end of the last user turn."""

    def __init__(self, template: ChatTemplate) -> None:
        self.in_system: bool = _takes_system(template)

    def put(self, sentence: str, messages: Sequence[Message]) -> list[Message]:
        """Return *messages* with *sentence* in its place; a system message that is there already goes first."""
        if not self.in_system:
            last = max(at for at, message in enumerate(messages) if message.role == "user")
            return [*messages[:last], _with(messages[last], sentence), *messages[last + 1 :]]
        if messages and messages[0].role == "system":
            return [_with(messages[0], sentence), *messages[1:]]
        return [Message(role="system", content=sentence), *messages]


def _with(message: Message, sentence: str) -> Message:
    return Message(role=message.role, content=f"{message.content}\n\n{sentence}")


def _takes_system(template: ChatTemplate) -> bool:
    """Tell whether *template* puts a system message in front of the conversation instead of refusing or losing it."""
    system, said = Message(role="system", content="Be yourself."), Message(role="user", content="Hello.")
    try:
        segments = template.render([system, said])
    except BackendError:
        template.render([said])  # another fault than the system message is not ours to hide
        return False
    return any(segment.message == 0 for segment in segments)


class ContrastReward:
    """The contrast of *sentences*, one dimension each, for one conversation (`RewardModel` in `padlite.seams`).

    *streams* must be the session's base model. Sentence i lives on *sequences*[i], which nobody else may use; it is
    evaluated only while it weighs anything, and catches up with the conversation when it does again.
    """

    def __init__(
        self,
        streams: Streams,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        sentences: Sequence[tuple[Dimension, str]],
        *,
        sequences: Sequence[int],
        leader: int = 0,
    ) -> None:
        if len(sequences) != len(sentences):
            raise UsageError("each sentence needs a sequence of its own", remedy="open the model with more sequences")
        self.dimensions: tuple[Dimension, ...] = tuple(dimension for dimension, _ in sentences)
        self._texts = tuple(text for _, text in sentences)
        self._streams, self._tokenizer, self._template = streams, tokenizer, template
        self._sequences, self._leader = tuple(sequences), leader
        self._place = SentencePlace(template)
        self._cached: list[list[int]] = [[] for _ in sentences]
        self.begin([], [], lambda: False)

    @property
    def reserved_tokens(self) -> int:
        """How much longer than the conversation's own the longest of the prompts is."""
        said = [Message(role="user", content="Hello.")]
        longest = max(len(self._prompt(text, said)) for text in self._texts)
        return longest - len(prompt_tokens(self._template, self._tokenizer, said)) + _SPARE_TOKENS

    def begin(self, messages: Sequence[Message], prompt: Sequence[int], cancelled: Callable[[], bool]) -> None:
        """Note that an answer to *messages* begins; the sentences' prompts are made and evaluated when they weigh."""
        self._messages, self._prompt_size, self._cancelled = tuple(messages), len(prompt), cancelled
        self._prompts: list[list[int] | None] = [None] * len(self._texts)
        self._answered = [_BEHIND] * len(self._texts)  # how many tokens of the answer each sequence holds

    def advance(self, context: Sequence[int], weights: FloatArray) -> None:
        """Do nothing: its sequences go with the base in the same engine (`Streams`)."""

    def features(self, step: Step) -> FloatArray:
        """Return the contrast of each candidate for each sentence that weighs anything, (k, m); 0 for the others."""
        features = np.zeros((len(step.candidates), len(self._texts)), dtype=np.float32)
        wanted = [int(number) for number in np.flatnonzero(step.weights)]
        # Those that stepped with the base come first: the next evaluation takes their logits away.
        for number in sorted(wanted, key=lambda number: not self._streams.arrived(self._sequences[number])):
            logits = self._logits(number, step.context)
            features[:, number] = pad_rewards(logits[step.candidates], step.base_logits)[:, 0]
        self._streams.accompany([self._sequences[number] for number in wanted])
        return features

    def _logits(self, number: int, context: Sequence[int]) -> FloatArray:
        """Return the logits (V,) of one sentence's sequence after the answer so far, which ends *context*."""
        sequence, answered = self._sequences[number], len(context) - self._prompt_size
        if self._answered[number] == answered - 1:
            logits = self._streams.follow(context[-1], sequence)
            self._cached[number].append(context[-1])
        else:
            logits = self._catch_up(number, context)
        self._answered[number] = answered
        return logits

    def _catch_up(self, number: int, context: Sequence[int]) -> FloatArray:
        """Evaluate what the sequence lacks of its prompt and the answer so far; share what it begins with, if longer.

        The longest known beginning is either what the sequence holds or what the conversation's own holds.
        """
        prompt = self._prompts[number]
        if prompt is None:
            prompt = self._prompts[number] = self._prompt(self._texts[number], self._messages)
        tokens, sequence = [*prompt, *context[self._prompt_size :]], self._sequences[number]
        if _common(tokens, context) > _common(tokens, self._cached[number]):
            self._streams.fork(self._leader, sequence)
        self._cached[number] = []
        logits = self._streams.prefill(tokens, sequence=sequence, cancelled=self._cancelled).logits
        self._cached[number] = tokens
        return logits

    def _prompt(self, text: str, messages: Sequence[Message]) -> list[int]:
        return prompt_tokens(self._template, self._tokenizer, self._place.put(text, messages))


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many first tokens are the same."""
    for at, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return at
    return min(len(left), len(right))
