"""Judges: does a sentence do anything at all, and how much of it does the fitted dimension do, at what price.

Both contexts of the teacher step along with every answer, so an answer's tokens are weighed without another evaluation:
*steering* is the mean over an answer's tokens of log p(token | sentence) − log p(token | no sentence) in nats, the
perplexity that of the plain base. Knows no file and no terminal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from padlite.dimensions.fit import mean_shift
from padlite.dimensions.harvest import CLAMP, Harvest, answer
from padlite.dimensions.teacher import ContrastTeacher, TaughtState
from padlite.errors import PadliteError
from padlite.seams import FloatArray, Message

LEAST_REACTION = 0.02  # nats of mean KL; a third of the least of the bundled model's styles
_LOOP = 4  # the same three tokens so often in one answer are a loop
_MOST_BROKEN = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """One way of answering the held-back prompts: its *steering* in nats a token, *perplexity*, and the *texts*."""

    steering: float
    perplexity: float
    texts: tuple[str, ...]


def require_reaction(harvest: Harvest, names: Sequence[str]) -> None:
    """Raise PadliteError if one of the sentences, called *names*, changes nothing or makes the base degenerate."""
    plain = harvest.plain
    for place, name in enumerate(names):
        features = np.clip(harvest.features[plain][:, :, place], -CLAMP, CLAMP)
        shift = mean_shift(harvest.base[plain], features)
        if not shift >= LEAST_REACTION:
            raise PadliteError(
                f"the base hardly reacts to this sentence ({name}: {shift:.3f} of {LEAST_REACTION} nats a token)",
                remedy="say it in other words, for example: Be … or Answer like …, or use a larger base model",
            )
    before, after = (_broken_share(harvest.answers(plain=each)) for each in (True, False))
    if after > _MOST_BROKEN and after > before + 0.25:
        raise PadliteError(
            f"the base talks nonsense when told so: {after:.0%} of its answers repeat themselves or are empty "
            f"({before:.0%} without the sentence)",
            remedy="say it in other words, or use another base model",
        )


def try_out(
    teacher: ContrastTeacher,
    prompts: Sequence[str],
    score: Callable[[TaughtState], FloatArray],
    *,
    sentence: int,
    limit: int,
    progress: Callable[[], None],
) -> Manner:
    """Return how the base answers *prompts* when *score* chooses, judged by the teacher's *sentence*."""
    steering: list[float] = []
    surprise: list[float] = []
    texts: list[str] = []
    for prompt in prompts:
        states = answer(teacher, [Message(role="user", content=prompt)], score, limit=limit)
        tokens = [token for _, token in states if token >= 0]
        texts.append(b"".join(map(teacher.tokenizer.piece, tokens)).decode("utf-8", "replace").strip())
        for state, token in states:
            if token >= 0:
                place = int(np.flatnonzero(state.candidates == token)[0])
                steering.append(float(state.features[place, sentence]))
                surprise.append(-float(state.base[place]))
        progress()
    if not steering:
        return Manner(steering=0.0, perplexity=1.0, texts=tuple(texts))
    return Manner(steering=float(np.mean(steering)), perplexity=float(np.exp(np.mean(surprise))), texts=tuple(texts))


def _broken_share(answers: Sequence[Sequence[int]]) -> float:
    """Return which share of *answers* (token ids) is empty or goes in circles."""
    return sum(map(_is_broken, answers)) / max(len(answers), 1)


def _is_broken(tokens: Sequence[int]) -> bool:
    threes = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return not tokens or max(map(threes.count, threes), default=0) >= _LOOP
