"""The recipes of the models: every number that a person may want to change, in one place.

Sizes in tokens unless a name says otherwise; times in seconds. Knows nothing of files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

GOING_ON_RATE = 0.4
"""Of the second phase's rates, for a base that goes on from an earlier bundle's."""

GOING_ON_SMALL_TALK = 0.9
"""What such a base lacks is what to say to whom, not how English goes."""

GOING_ON_SHARE = 0.8
"""Its share in the mean with the base before: all of it would know more of what it learned last, less of the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes of the base model. *width* and *feed_forward* must be multiples of 32 (the block of Q8_0)."""

    vocabulary: int = 4096
    width: int = 320
    layers: int = 6
    heads: int = 5
    feed_forward: int = 864
    context_length: int = 1024
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseTraining:
    """One phase of training the base model; the schedule follows the share of *budget_s* that has passed, not steps.

    *small_talk* is the share of tokens that styled small talk gets, *plain_sentence* how often a style is asked for in
    the first of its sentences, *user_weight* how much the user's words count in the loss of small talk. One step
    of *questions_every* (2 or more) is on questions alone; beside text the topic loss (`losses`) counts
    *topic_weight*, and *topic_rate* is the rate of its classifier. *compiled* lets PyTorch compile the model, which
    wants a C++ compiler and gives a third more speed.
    """

    budget_s: float = 30 * 60.0
    threads: int = 2
    compiled: bool = True
    batch_tokens: int = 6144
    row_length: int = 256
    long_row_every: int = 6
    warmup_share: float = 0.02
    decay_share: float = 0.5
    matrix_rate: float = 0.02
    table_rate: float = 2e-3
    weight_decay: float = 0.02
    checkpoint_every_s: float = 180.0
    user_weight: float = 0.1
    questions_every: int = 3
    topic_weight: float = 0.5
    topic_rate: float = 2e-3
    small_talk: float = 0.5
    plain_sentence: float = 0.4
    seed: int = 2410


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadTraining:
    """How the reward head is distilled from the contrast teacher.

    The *validation_share* of the scenarios says which epoch was best and how far a dimension shifts the base: with a
    handful of scenarios that is left to chance.
    """

    rank: int = 128
    candidates: int = 24
    answers: int = 16_000
    answer_tokens: int = 40
    clamp: float = 6.0
    weight_decay: float = 0.6
    rate: float = 3e-3
    epochs: int = 8
    mean_shift_nats: float = 0.3
    validation_share: float = 0.05
    seed: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How much `padlite eval` is given to judge head and rivals on; *pairs_each* for each dimension."""

    strengths: tuple[float, ...] = (1.0, 2.0, 3.0)
    best_of: tuple[int, ...] = (4,)
    prompts: int = 14
    pairs_each: int = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All of it; *description* is what it makes, *weights* how its matrices are stored, by llama.cpp's names."""

    description: str = "A very small English chat model"
    weights: str = "q8_0"
    model: ModelShape = field(default_factory=ModelShape)
    base: BaseTraining = field(default_factory=BaseTraining)
    focus: BaseTraining = field(
        default_factory=lambda: BaseTraining(
            budget_s=55 * 60.0, small_talk=0.75, plain_sentence=0.7, matrix_rate=0.015, table_rate=1.5e-3,
            decay_share=0.6, long_row_every=20, seed=2411,
        )
    )  # fmt: skip
    head: HeadTraining = field(default_factory=HeadTraining)
    comparison: Comparison = field(default_factory=Comparison)
    strength: float = 0.8
    candidates: int = 10

    @property
    def phases(self) -> dict[str, BaseTraining]:
        """The phases of training the base model, in order; each has a checkpoint of its name."""
        return {"base": self.base, "focus": self.focus}

    def going_on(self) -> "Recipe":
        """Return the recipe for a base that was trained before: a full rate takes most of the time to recover from."""
        matrix_rate, table_rate = (GOING_ON_RATE * rate for rate in (self.focus.matrix_rate, self.focus.table_rate))
        decay_share = 1.0 - self.focus.warmup_share
        focus = replace(
            self.focus, matrix_rate=matrix_rate, table_rate=table_rate, decay_share=decay_share,
            small_talk=GOING_ON_SMALL_TALK,
        )  # fmt: skip
        return replace(self, focus=focus)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "tiny": Recipe(),
        "small": Recipe(
            description="A small English chat model",
            weights="q4_k_m",
            model=ModelShape(vocabulary=8192, width=512, layers=16, heads=8, feed_forward=1536),
            base=BaseTraining(budget_s=8 * 60.0, batch_tokens=65_536, row_length=512, weight_decay=0.1),
            focus=BaseTraining(
                budget_s=8 * 60.0, batch_tokens=65_536, row_length=512, weight_decay=0.1, small_talk=0.75,
                plain_sentence=0.8, matrix_rate=0.015, table_rate=1.5e-3, decay_share=0.6, long_row_every=20, seed=2411,
            ),
        ),
    }
)  # fmt: skip
"""*tiny* (9 million weights) is the bundled model, for two processor cores; *small* (59 million) wants a large GPU."""


HELD_OUT_SCENARIOS = frozenset({4, 11, 14, 22, 41, 43, 52, 54, 58, 76, 77, 82, 83, 87})
"""`sorted(random.Random(2410).sample(ids, 14))` over all scenario ids but 67; neither base nor head may see them."""

SAME_ANSWER_SCENARIO = 67
"""The scenario about suicide: the same answer in every style, so it is trained on but never judged for style."""

HELD_OUT_WORDING_SHARE = 0.1

HELD_OUT_OWN = frozenset({
    7, 38, 53, 64, 78, 103, 116, 144, 151, 153, 177, 200, 283, 344, 357, 362, 363, 370, 390, 494, 506, 531, 554, 560,
    564, 579, 582, 585, 601, 607, 613, 625, 662, 694, 698, 700, 701, 755, 768, 773, 819,
})  # fmt: skip
"""`random.Random(2410).sample(range(820), 41)`: of the first 820 own scenarios, to judge all eight styles on.

Fixed like the public ones, so that text that is added later moves none of them into what an earlier model has seen.
"""

HELD_OUT_DIALOGUES = 150
SPLIT_SEED = 2410
