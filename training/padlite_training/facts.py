"""What the stages measured, as records that are kept as JSON in the work folder and read by the card.

Losses and scores in nats per token, shares from 0 to 1, times in seconds.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from padlite.whole_files import write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept as a file of JSON."""

    def save(self, path: Path) -> None:
        """Write the record to *path*, whole or not at all: that it is there means that the stage is done."""
        write_whole(path, json.dumps(asdict(self), indent=1, ensure_ascii=False).encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the record at *path*."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(slots=True)
class Progress:
    """How far a phase of training has come."""

    elapsed_s: float = 0.0
    steps: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How closely the GGUF follows the PyTorch model over all positions of some prompts.

    *cosine* is the least cosine of two logit vectors, *difference* the mean absolute difference of log-probabilities,
    *top_one* the share of positions with the same best token.
    """

    cosine: float
    difference: float
    top_one: float
    positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierFacts(Record):
    """The bundle that a training went on from: its name, and the SHA-256 of its base's GGUF."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFacts(Record):
    """The base model: number of weights, the phases of its training, its loss on held-out dialogues, its parity.

    The first phase is the training of *earlier*, if it went on from a bundle. *device* is where the last one ran.
    """

    weights: int
    phases: dict[str, Progress]
    held_out_loss: float
    parity: Parity
    earlier: EarlierFacts | None = None
    device: str = "cpu"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the record at *path*."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        phases = {name: Progress(**phase) for name, phase in raw.pop("phases").items()}
        earlier = EarlierFacts(**raw["earlier"]) if raw.get("earlier") else None
        return cls(**raw | {"phases": phases, "parity": Parity(**raw["parity"]), "earlier": earlier})


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadFacts(Record):
    """The reward head: *explained* is the share of the teacher's KL it accounts for on validation scenarios."""

    states: int
    answers: int
    rank: int
    epochs: int
    explained: float
    scales: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFacts(Record):
    """The text map, fitted to *texts*: on everyday ones that it wasn't fitted to.

    *right* is the share of *judged* texts whose strongest weight is that of the style they ask for; *quiet* the share
    of the texts *without* a wish that leave every weight small.
    """

    texts: int
    judged: int
    right: float
    without: int
    quiet: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One set of held-out questions.

    *guided*, *plain*, *sentence* are the shares of answers in the wanted style: guided by the head, not at all, by a
    sentence in the prompt (None where that wasn't tried). *by_style* is *guided* one by one. Scores are mean
    log-probabilities under the plain base; *match* is the share of guided answers that equal the reference answer.
    """

    questions: int
    scenarios: int
    guided: float
    plain: float
    sentence: float | None
    by_style: dict[str, float]
    plain_score: float
    guided_score: float
    sentence_score: float | None
    match: float

    @property
    def loss(self) -> float:
        """How much worse than plain the guided answers are under the base."""
        return self.plain_score - self.guided_score


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One question with its answers by manner: plain, each style, 'sentence STYLE'."""

    question: str
    scenario: str
    answers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(Record):
    """What the bundle does on each held-out set at *strength* with *candidates*.

    *classifier_accuracy* by the number of styles that the classifier tells apart.
    """

    strength: float
    candidates: int
    classifier_accuracy: dict[int, float]
    figures: dict[str, Figures]
    answered: dict[str, list[Answered]]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the record at *path*."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        accuracy = {int(count): share for count, share in raw.pop("classifier_accuracy").items()}
        figures = {name: Figures(**each) for name, each in raw.pop("figures").items()}
        answered = {name: [Answered(**each) for each in rows] for name, rows in raw.pop("answered").items()}
        return cls(**raw, classifier_accuracy=accuracy, figures=figures, answered=answered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The means of one way at one setting (β or n): the fields of `judging.evaluation.Row` that the card shows.

    None: not defined, as there.
    """

    rival: str
    strength: float
    answers: int
    steering: float
    steering_error: float | None
    perplexity: float | None
    distinct_2: float
    flip_rate: float
    policy_accuracy: float | None
    policy_error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What `padlite eval` said of the ways on one held-out set, as `compare` keeps it."""

    chance: float
    classifier_accuracy: float
    means: tuple[Standing, ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the record at *path*."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        names = [each.name for each in fields(Standing)]
        means = tuple(
            Standing(**{name: row[name] for name in names}) for row in raw["rows"] if row["dimension"] == "mean"
        )
        return cls(chance=raw["chance"], classifier_accuracy=raw["classifier_accuracy"], means=means)
