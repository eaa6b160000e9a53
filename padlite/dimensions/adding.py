"""Makes dimensions of sentences, from the first answer to the head in its place.

Each stage is a module of its own; here they follow one another. Interrupted at any moment, the same call goes on with
the answers it has. Shapes: V vocabulary, d width, r rank, m sentences. Knows no terminal.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from padlite.backends import llama_devices
from padlite.backends.llama import LlamaModel
from padlite.backends.llama_tensors import OutputMatrix
from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_head import HalfArray, Probe
from padlite.backends.onnx_head_arrays import HeadArrays
from padlite.dimensions import fit, stacking
from padlite.dimensions.harvest import CLAMP, Harvest, HarvestFolder, guided_by, harvest, require_fitting
from padlite.dimensions.plan import Plan, Share
from padlite.dimensions.shelf import Shelf
from padlite.dimensions.teacher import ContrastTeacher, TaughtState
from padlite.dimensions.trial import Manner, require_reaction, try_out
from padlite.errors import PadliteError, RewardMismatchError, UsageError
from padlite.opening import chat_template, require_same_base
from padlite.options import EngineOptions
from padlite.own_heads import fingerprint
from padlite.seams import Dimension, FloatArray

SHIFT_NATS = 0.3  # what weight 1 at strength 1 moves the base's distribution, on average over plain answers
LEAST_EXPLAINED = 0.05
_LONGEST_SENTENCE = 2000
_EXAMPLE = 'padlite dimension add pirate --sentence "Answer like a pirate."'
_FIRST_PARTS = 2  # of the harvest, after which it shows whether the sentences do anything
_MOST_TRIALS = 24  # held-back prompts that are answered for the report
_LARGEST_CONTEXT = 1024
_PROBE_TEXT = "Hello there! How are you doing today? I would like to talk about films and music."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A dimension to be made: its *name* and the *sentence* that it is made of.

    Raises UsageError for a sentence that no model could be told.
    """

    name: str
    sentence: str

    def __post_init__(self) -> None:
        text = self.sentence
        if not text.strip() or "\0" in text or len(text) > _LONGEST_SENTENCE:
            raise UsageError(
                f"the sentence of {self.name!r} is empty, longer than {_LONGEST_SENTENCE:,} characters or holds a NUL",
                remedy=_EXAMPLE,
            )
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the sentence of {self.name!r} is not valid UTF-8", remedy="check the encoding of your terminal"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """How to make dimensions: from how many *answers* to which *prompts*, on how many *threads* (0: every core).

    *device* is where the model answers, as in `EngineOptions`.
    """

    prompts: tuple[str, ...]
    answers: int
    threads: int = 0
    gpu_layers: int = -1
    device: str = "auto"
    seed: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of one sentence, judged on prompts that were kept back.

    *explained* is the share of the teacher's KL that the dimension accounts for. *weight* is how much of it is as
    strong as the sentence itself; *taught* and *learned* are the answers with the sentence and with that weight,
    *plain* those without either, and *example* those at weight 1.
    """

    name: str
    explained: float
    rounds: int
    states: int
    prompts: tuple[str, ...]
    weight: float
    plain: Manner
    taught: Manner
    learned: Manner
    example: Manner

    @property
    def steering(self) -> float:
        """How much of what the sentence does to the words the dimension does, 1 for all of it."""
        whole = self.taught.steering - self.plain.steering
        return (self.learned.steering - self.plain.steering) / whole if whole else 0.0


class Watch(Protocol):
    """Hears how far the making is."""

    def stage(self, text: str, total: int) -> None:
        """A stage of *total* steps begins."""
        ...

    def reached(self, step: float) -> None:
        """So many of its steps are done."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """The *reports* on dimensions that were made, and the file of the *head* that they are in now."""

    reports: tuple[Report, ...]
    head: Path


def add_dimensions(shelf: Shelf, wanted: Sequence[Wanted], making: Making, watch: Watch) -> Added:
    """Make the *wanted* dimensions, put them on the *shelf*, and return how they turned out.

    Raises UsageError for names that are taken, a reward LM, a bundle that has an own copy elsewhere, texts that don't
    fit the context, or too few answers; BackendError for a base without chat template, a disk without room or a device
    that can't be had; RewardMismatchError for a head of another base; PadliteError for sentences that nothing can be
    made of, or while another process makes the same.
    """
    names = [each.name for each in wanted]
    shelf.require_place()
    options = EngineOptions(
        largest_context=_LARGEST_CONTEXT, threads=making.threads, gpu_layers=making.gpu_layers, device=making.device,
        sequences=len(wanted) + 2, contexts=len(wanted) + 1,
    )  # fmt: skip
    llama_devices.allowed(options)  # before the whole file is read for its fingerprint
    head = shelf.load()
    if head is not None:
        stacking.refuse_existing(head, names)
    plan = Plan(
        base_fingerprint=fingerprint(shelf.source.base),
        sentences=tuple(each.sentence for each in wanted),
        prompts=making.prompts, answers=making.answers, seed=making.seed,
    )  # fmt: skip
    plan.require_shares()
    folder = HarvestFolder(shelf.paths.harvests, plan)
    with folder.alone():
        with LlamaModel.open(shelf.source.base, options) as base:
            if shelf.head is not None:
                with OnnxHead.open(shelf.head, device="cpu") as opened:
                    require_same_base(opened, base)
            template = chat_template(base)
            matrix = OutputMatrix(base.path, vocabulary_size=base.vocabulary_size, hidden_size=base.hidden_size)
            teacher = ContrastTeacher(base, base.tokenizer, template, plan.sentences, candidates=plan.candidates)
            require_fitting(teacher, plan, names)
            folder.require_room(base.hidden_size)
            empty = HeadArrays(
                table=np.empty((base.vocabulary_size, 0), dtype=np.float16),
                maps=np.empty((0, base.hidden_size, 0), dtype=np.float32),
                dimensions=(), tokenizer_sha256=base.tokenizer.sha256,
                probe=Probe(text=_PROBE_TEXT, hidden=base.unit_hidden_state(_PROBE_TEXT)),
            )  # fmt: skip
            found = _harvested(teacher, plan, folder, names, watch)
            fitted = _fitted(found, matrix, making.seed, watch)
            shares = fit.explained(fitted, found.states(found.share == Share.TEST), matrix.rows, clamp=CLAMP)
            _require_learned(wanted, shares)
            fitted, weights = _calibrated(fitted, found, matrix)
            table, maps = _balanced(fitted, matrix)
            reports = _reports(teacher, plan, wanted, found, fitted, shares, weights, table, maps, watch)
        dimensions = [
            Dimension(name=each.name, description=each.sentence, scale=float(scale))
            for each, scale in zip(wanted, fitted.scales, strict=True)
        ]
        origins = {each.name: _origin(each, report) for each, report in zip(wanted, reports, strict=True)}
        path = shelf.save(lambda now: _joined(now or empty, table, maps, dimensions, origins))
        folder.remove()
    return Added(reports=tuple(reports), head=path)


def _joined(
    head: HeadArrays, table: HalfArray, maps: FloatArray, dimensions: Sequence[Dimension], origins: Mapping[str, str]
) -> HeadArrays:
    """Return *head* with the new *dimensions*; it may be another one than when they were begun, minutes or hours ago.

    Raises UsageError if it has dimensions of these names by now, RewardMismatchError if it belongs to another base.
    """
    stacking.refuse_existing(head, [each.name for each in dimensions])
    if head.table.shape[0] != table.shape[0] or head.maps.shape[1] != maps.shape[1]:
        raise RewardMismatchError(
            "the model was replaced by another one while the dimension was being made",
            remedy="run the command again",
        )
    return stacking.stacked(head, table, maps, dimensions, origins)


def _harvested(
    teacher: ContrastTeacher, plan: Plan, folder: HarvestFolder, names: Sequence[str], watch: Watch
) -> Harvest:
    """Return the whole harvest; stop early, and forget it, if the sentences do nothing, or nothing good."""
    watch.stage("answering", plan.parts)
    first = min(_FIRST_PARTS, plan.parts)
    harvest(teacher, plan, folder, parts=first, progress=watch.reached)
    found = folder.load(first)
    try:
        require_reaction(found, names)
    except PadliteError:
        folder.remove()  # more answers would change nothing, other words are another harvest
        raise
    harvest(teacher, plan, folder, parts=plan.parts, progress=watch.reached)
    return folder.load(plan.parts)


def _fitted(found: Harvest, matrix: OutputMatrix, seed: int, watch: Watch) -> fit.FittedHead:
    """Return the head fitted to the harvest, in the teacher's own scale."""
    count = found.features.shape[2]
    options = fit.FitOptions(rank=32 + 4 * (count - 1), clamp=CLAMP, seed=seed)
    watch.stage("fitting", 100)
    train, held = (found.states(found.share == share) for share in (Share.TRAIN, Share.STOP))
    head = fit.fit_head(train, held, matrix.rows, options, progress=lambda share: watch.reached(100 * share))
    watch.reached(100)
    return head


def _calibrated(head: fit.FittedHead, found: Harvest, matrix: OutputMatrix) -> tuple[fit.FittedHead, FloatArray]:
    """Return *head* so that weight 1 means the same on every base, and which weights are as strong as the sentences.

    Equally strong is what moves the base's distribution as far, on average over plain answers to prompts kept back.
    """
    calm = found.plain & (found.share != Share.TRAIN)
    states = found.states(calm if calm.any() else found.plain)
    tokens, places = np.unique(states.candidates, return_inverse=True)
    features = head.features(matrix.rows(tokens), places.reshape(states.candidates.shape), states.hidden)
    scales: list[float] = []
    weights: list[float] = []
    for i in range(features.shape[2]):
        whole = fit.mean_shift(states.base, np.clip(states.features[:, :, i], -CLAMP, CLAMP))
        scales.append(fit.scale_for_shift(states.base, features[:, :, i], shift=SHIFT_NATS))
        weights.append(fit.scale_for_shift(states.base, features[:, :, i], shift=whole) / scales[-1])
    return head.scaled(np.array(scales, dtype=np.float32)), np.array(weights, dtype=np.float32)


def _require_learned(wanted: Sequence[Wanted], shares: FloatArray) -> None:
    for each, share in zip(wanted, shares, strict=True):
        if not share >= LEAST_EXPLAINED:
            raise PadliteError(
                f"no dimension can be made of this sentence ({each.name}): a head learns {max(float(share), 0.0):.0%} "
                "of what it does",
                remedy="ask for more answers (--answers 3000), or use the sentence itself: [preferences.sentences]",
            )


def _balanced(head: fit.FittedHead, matrix: OutputMatrix) -> tuple[HalfArray, FloatArray]:
    """Return the table of u_a (V, r) and the maps (m, d, r), their sizes balanced so that float16 serves the table."""
    words = matrix.times(head.projection)
    size = np.float32(float(np.abs(words).max()) / 8.0 or 1.0)
    return (words / size).astype(np.float16), np.ascontiguousarray(head.maps * size, dtype=np.float32)


def _reports(
    teacher: ContrastTeacher, plan: Plan, wanted: Sequence[Wanted], found: Harvest, fitted: fit.FittedHead,
    shares: FloatArray, weights: FloatArray, table: HalfArray, maps: FloatArray, watch: Watch,
) -> list[Report]:  # fmt: skip
    prompts = plan.prompts_for(Share.TEST)[:_MOST_TRIALS]
    watch.stage("trying it out", 4 * len(prompts) * len(wanted))
    done = 0

    def one_done() -> None:
        nonlocal done
        done += 1
        watch.reached(done)

    def manner(score: Callable[[TaughtState], FloatArray], place: int) -> Manner:
        return try_out(teacher, prompts, score, sentence=place, limit=plan.answer_tokens, progress=one_done)

    reports: list[Report] = []
    for place, each in enumerate(wanted):
        weight = float(weights[place])
        push = np.zeros(len(wanted), dtype=np.float32)
        plain = manner(guided_by(push), place)
        push[place] = 1.0
        taught = manner(guided_by(push.copy()), place)
        learned, example = (manner(_by_head(table, maps[place], w), place) for w in (weight, 1.0))
        reports.append(
            Report(
                name=each.name,
                explained=float(shares[place]),
                rounds=fitted.rounds,
                states=len(found.share),
                prompts=prompts,
                weight=weight,
                plain=plain,
                taught=taught,
                learned=learned,
                example=example,
            )
        )
    return reports


def _by_head(table: HalfArray, maps: FloatArray, weight: float) -> Callable[[TaughtState], FloatArray]:
    """Return the scores (k,) that a dimension gives a state at *weight*: as the runtime computes them."""

    def score(state: TaughtState) -> FloatArray:
        features = table[state.candidates].astype(np.float32) @ (state.hidden @ maps)
        return np.asarray(state.base + np.float32(weight) * features, dtype=np.float32)

    return score


def _origin(wanted: Wanted, report: Report) -> str:
    """Return what the head's file says about a dimension that was added to it, as JSON."""
    facts = {
        "sentence": wanted.sentence,
        "explained": round(report.explained, 3),
        "steering": round(report.steering, 3),
        "equal_weight": round(report.weight, 3),
        "states": report.states,
        "perplexity": {
            "plain": round(report.plain.perplexity, 2),
            "sentence": round(report.taught.perplexity, 2),
            "dimension": round(report.learned.perplexity, 2),
        },
    }
    return json.dumps(facts, ensure_ascii=False)
