"""`padlite eval`: opens what a profile means, judges it with its rivals, and returns the evaluation.

Cheap checks come first: pairs, groups, dimensions, rivals, head and base, template, lengths.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_head_arrays import load_arrays
from padlite.contrast import ContrastReward, SentencePlace
from padlite.errors import UsageError, did_you_mean
from padlite.opening import chat_template, find_source, require_same_base
from padlite.options import EngineOptions
from padlite.profile import Profile
from padlite.seams import Dimension
from padlite.template import ChatTemplate
from padlite_training.completions import Completions
from padlite_training.judging.classifier import AnswerClassifier
from padlite_training.judging.evaluation import Evaluation, Questions, evaluate, questions_of
from padlite_training.judging.rivals import BestOf, Guided, Plain, Prompted, Rival
from padlite_training.judging.speaker import Speaker
from padlite_training.pairs.harvest import require_room
from padlite_training.pairs.reading import Pair, PairsError, read_pairs, require_known_dimensions
from padlite_training.pairs.split import HELD_OUT_SHARE, recorded_share, split_by_group
from padlite_training.pairs.telling import Teller

RIVALS = ("plain", "prompt", "head", "contrast", "best-of-n")
WITH_HEAD = frozenset({"head", "best-of-n"})
"""Those that a model without a reward head can't have."""

STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)
LARGEST_CONTEXT = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOrder:
    """What to judge: the model that *profile* means, on *pairs*.

    Without *reference*, the share *held_out* of the groups of *pairs* is judged (the same groups that `padlite train
    head` holds out with that share) and the classifier learns from the others; with it, all of *pairs* are judged, and
    it learns from *reference*. It never learns an answer that is preferred in what is judged.
    *sentences* are the words for dimensions; others are asked for as "Be NAME.".
    """

    profile: Profile
    pairs: Path
    reference: Path | None = None
    rivals: tuple[str, ...] = RIVALS
    strengths: tuple[float, ...] = STRENGTHS
    best_of: tuple[int, ...] = (2, 4, 8)
    prompts: int = 40
    pairs_each: int = 60
    max_tokens: int = 64
    held_out: float = HELD_OUT_SHARE
    seed: int = 1
    sentences: Mapping[str, str] = dataclasses.field(default_factory=dict)


def run(order: EvaluationOrder, teller: Teller, *, cancelled: Callable[[], bool] = lambda: False) -> Evaluation:
    """Return the evaluation that *order* asks for; DecodingCancelled soon after *cancelled* turns true."""
    judged, learned = _parts(order)
    questions = questions_of(judged, prompts=order.prompts, pairs_each=order.pairs_each)
    if not questions.dimensions:
        raise PairsError(order.pairs, ["no held-out pair names a dimension"], remedy='give pairs a "dimension"')
    sentences = _sentences(order, questions)
    source = find_source(order.profile)
    if source.reward is None:
        _require_rivals_without_head(order.rivals)
    with contextlib.ExitStack() as stack:
        head = stack.enter_context(OnnxHead.open(source.reward, device="cpu")) if source.reward else None
        if head is not None and WITH_HEAD & set(order.rivals):
            require_known_dimensions(order.pairs, judged, [each.name for each in head.dimensions])
            if order.reference is None and source.reward is not None:
                require_held_out(load_arrays(source.reward).provenance, order.held_out)
        known = reference_answers(order.reference or order.pairs, learned, judged)
        classifier = AnswerClassifier(
            [each.text for each in known], [each.dimension for each in known], [each.group for each in known]
        )
        base = stack.enter_context(LlamaModel.open(source.base, _engine(order.profile, questions, source.reward)))
        template = chat_template(base)
        if head is not None:
            require_same_base(head, base)
        texts, place = Completions(template, base.tokenizer), SentencePlace(template)
        _require_room(order, questions, judged, texts, place, sentences, room=base.context_length)
        options = dataclasses.replace(
            order.profile.decoding_options(source.defaults), max_tokens=order.max_tokens, temperature=0.0
        )
        speaker = Speaker(base, template, options, scoring_sequence=len(questions.dimensions) + 1)
        rivals = _rivals(order, sentences, speaker, template, head)
        teller.say(
            f"{len(questions.prompts)} conversations, {len(questions.dimensions)} dimensions; the classifier is right "
            f"on {classifier.accuracy:.0%} of answers of groups that it hasn't seen"
        )
        if head is None and WITH_HEAD & set(order.rivals):
            teller.say("the model has no reward head, so head and best-of-n are left out")
        with teller.counting("judge", len(rivals) * len(questions.dimensions)) as show:
            return evaluate(speaker, rivals, questions, classifier, progress=show, cancelled=cancelled)


def _parts(order: EvaluationOrder) -> tuple[Sequence[Pair], Sequence[Pair]]:
    """Return the pairs that are judged and those that the classifier learns from.

    Without a reference no group is in both. A reference may hold groups that are judged, as other wordings of the same
    situations do, but `reference_answers` takes none of their preferred answers.
    """
    pairs = read_pairs(order.pairs)
    if order.reference is None:
        split = split_by_group(order.pairs, pairs, share=order.held_out)
        return split.held_out, split.training
    reference = read_pairs(order.reference)
    return pairs, reference


def require_held_out(provenance: Mapping[str, str], judged: float) -> None:
    """Raise UsageError if a head with this *provenance* was trained on groups of the share that is *judged*.

    A head that doesn't say what was held out for it is taken as it is.
    """
    share = recorded_share(provenance)
    if share is not None and share < judged:
        raise UsageError(
            f"{share:g} of the groups were held out when this head was trained, less than the {judged:g} that would be "
            "judged: it knows the others",
            remedy=f"judge what it doesn't know: --held-out {share:g}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceAnswer:
    """An answer that the classifier learns from: *text* has more of *dimension*."""

    text: str
    dimension: str
    group: str


def reference_answers(path: Path, learned: Sequence[Pair], judged: Sequence[Pair]) -> list[ReferenceAnswer]:
    """Return the different answers in *learned* that have more of a dimension of *judged*.

    None of them is such an answer in *judged* as well, drawn to be ranked or not. Raises PairsError (of the file
    *path*) that names the dimensions of which nothing is left to learn.
    """
    dimensions = sorted({pair.dimension for pair in judged if pair.dimension is not None})
    known = {pair.more_and_less[0] for pair in judged if pair.dimension is not None}
    found = dict.fromkeys(
        ReferenceAnswer(text=pair.more_and_less[0], dimension=pair.dimension, group=pair.group)
        for pair in learned
        if pair.dimension is not None and pair.dimension in dimensions and pair.more_and_less[0] not in known
    )
    learnable = {each.dimension for each in found}
    if lacking := [name for name in dimensions if name not in learnable]:
        raise PairsError(
            path,
            [f"{name!r} has no answer left to learn from that isn't judged as well" for name in lacking],
            remedy="give --reference pairs with other answers of these dimensions, or leave these out of --pairs",
        )
    return list(found)


def _require_rivals_without_head(rivals: Sequence[str]) -> None:
    """Raise UsageError if all of *rivals* need a reward head."""
    if set(rivals) <= WITH_HEAD:
        raise UsageError(
            f"{' and '.join(rivals)} can't be judged: the model has no reward head",
            remedy="name one with --reward, or another --rival",
        )


def _require_room(
    order: EvaluationOrder,
    questions: Questions,
    judged: Sequence[Pair],
    texts: Completions,
    place: SentencePlace,
    sentences: Mapping[str, str],
    *,
    room: int,
) -> None:
    """Raise PairsError that names each judged pair whose conversation isn't within *room* tokens.

    A prompt needs room for an answer of the most tokens, a pair that is ranked for its own two, both with the longest
    of *sentences*.
    """
    longest_sentence = max(sentences.values(), key=lambda text: len(texts.answer(text)))
    ranked = {pair.line for of_dimension in questions.pairs.values() for pair in of_dimension}
    asked = set(questions.prompts)
    lengths = []
    for pair in judged:
        answers = [len(texts.answer(text)) for text in pair.more_and_less] if pair.line in ranked else []
        answers += [order.max_tokens] if pair.messages in asked else []
        if answers:
            prompt = texts.prompt(place.put(longest_sentence, pair.messages))
            lengths.append((pair.line, len(prompt) + max(answers)))
    remedy = "shorten these pairs, lower --max-tokens, or set a larger context_length under [engine] in a profile"
    require_room(order.pairs, lengths, room, remedy=remedy)


def _sentences(order: EvaluationOrder, questions: Questions) -> dict[str, str]:
    """Return the words for each dimension. Raises UsageError where there are words for one that isn't judged."""
    sentences = {name: f"Be {name}." for name in questions.dimensions}
    for name, text in order.sentences.items():
        if name not in sentences:
            raise UsageError(
                f"no judged pair has the dimension {name!r}{did_you_mean(name, sentences)}",
                remedy=f"use one of: {', '.join(sentences)}",
            )
        sentences[name] = text
    return sentences


def _rivals(
    order: EvaluationOrder,
    sentences: Mapping[str, str],
    speaker: Speaker,
    template: ChatTemplate,
    head: OnnxHead | None,
) -> list[Rival]:
    """Return the rivals that are asked for and can be had."""
    contrast = ContrastReward(
        speaker.streams, speaker.base.tokenizer, template,
        [(Dimension(name=name), text) for name, text in sentences.items()],
        sequences=range(1, len(sentences) + 1),
    )  # fmt: skip
    possible: dict[str, Rival] = {
        "plain": Plain(speaker),
        "prompt": Prompted(speaker, SentencePlace(template), sentences),
        "contrast": Guided(speaker, contrast, "contrast", order.strengths),
    }
    if head is not None:
        possible["head"] = Guided(speaker, head, "head", order.strengths)
        possible["best-of-n"] = BestOf(speaker, head, order.best_of, seed=order.seed)
    return [possible[name] for name in RIVALS if name in order.rivals and name in possible]


def _engine(profile: Profile, questions: Questions, reward: Path | None) -> EngineOptions:
    """Return options with a sequence for the conversation, each sentence, likelihoods, and the head's probe."""
    count = len(questions.dimensions) + 2
    return EngineOptions(
        context_length=profile.context_length,
        largest_context=LARGEST_CONTEXT,
        threads=profile.threads,
        gpu_layers=profile.gpu_layers,
        sequences=count + 1,
        contexts=count,
        hidden_states=reward is not None,
    )
