"""Writes what describes a bundle: `bundle.toml` and `card.md`, every figure taken from what the stages measured."""

import math
from dataclasses import dataclass
from pathlib import Path

from padlite.backends.onnx import OnnxHead
from padlite.bundle import Bundle, write_manifest
from padlite_training.compare import JUDGED
from padlite_training.corpus import load_small_talk
from padlite_training.evaluate import BARS, LOSS_BAR, PLAIN, SETS, shortfalls, table
from padlite_training.facts import Answered, BaseFacts, Compared, Evaluation, HeadFacts, Standing, TextFacts
from padlite_training.means import with_error
from padlite_training.recipe import GOING_ON_SHARE, HELD_OUT_SCENARIOS, Recipe
from padlite_training.sources import OWN_SMALL_TALK, SOURCES
from padlite_training.split import SmallTalkSplit
from padlite_training.styles import DESCRIPTIONS, STYLES

EACH_SET = 5  # examples in the card
SETTING = {"head": "β", "contrast": "β", "best of n": "n"}
PHASES = {"base": "everything", "focus": "mostly small talk"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything that the stages left in the work folder for the card."""

    base: BaseFacts
    head: HeadFacts
    texts: TextFacts
    evaluation: Evaluation
    split: SmallTalkSplit
    rivals: dict[str, Compared]

    @classmethod
    def load(cls, work: Path) -> "Measured":
        """Read the work folder."""
        return cls(
            base=BaseFacts.load(work / "base.json"),
            head=HeadFacts.load(work / "head.json"),
            texts=TextFacts.load(work / "texts.json"),
            evaluation=Evaluation.load(work / "evaluation.json"),
            split=load_small_talk(work / "corpus"),
            rivals={name: Compared.load(work / f"rivals-{name}.json") for name in JUDGED},
        )


def write(out: Path, work: Path, recipe: Recipe, *, licence: str) -> Bundle:
    """Write the manifest and the card of the bundle in *out* from the figures in *work*."""
    measured = Measured.load(work)
    base, head = measured.base, measured.head
    with OnnxHead.open(out / "reward.onnx", device="cpu") as reward:
        dimensions = reward.dimensions
    minutes = sum(phase.elapsed_s for phase in base.phases.values()) / 60
    tokens = sum(phase.tokens for phase in base.phases.values())
    bundle = write_manifest(
        out,
        name=out.name,
        license=licence,
        title=out.name.replace("-", " "),
        description=f"{recipe.description} with eight styles that can be mixed",
        dimensions=dimensions,
        strength=measured.evaluation.strength,
        candidates=measured.evaluation.candidates,
        context_length=recipe.model.context_length,
        training={
            "text": ", ".join(source.name for source in (*SOURCES, OWN_SMALL_TALK)),
            "base": f"{base.weights:,} weights, {tokens:,} tokens, {minutes:.0f} minutes",
            "head": f"rank {head.rank}, distilled from the contrast teacher on {head.states:,} states",
            "made_by": "python -m padlite_training.build",
        },
    )
    (out / "card.md").write_text(card(out, measured, recipe, licence=licence), encoding="utf-8")
    return bundle


def card(out: Path, measured: Measured, recipe: Recipe, *, licence: str) -> str:
    """Return the card of the bundle in *out*."""
    styles = "\n".join(f"- **{style}**: {DESCRIPTIONS[style]}" for style in STYLES)
    sections = [
        f"# {out.name}",
        _introduction(measured.base, recipe),
        "This card is written by `padlite_training.card` from what the run that made the bundle measured.",
        f"## Styles\n\n{styles}",
        _data(measured.split),
        _size(out, measured.base, recipe, licence),
        _training(measured, recipe),
        _results(measured.evaluation),
        *(_rivals(name, compared) for name, compared in measured.rivals.items()),
        _examples(measured.evaluation),
        _limits(measured.evaluation),
    ]
    return "\n\n".join(sections) + "\n"


def _introduction(base: BaseFacts, recipe: Recipe) -> str:
    return (
        f"{recipe.description} ({base.weights / 1e6:.1f} million weights) with a reward head for eight "
        "styles. It is there for trying padlite out: it keeps up small talk and knows next to nothing."
    )


def _data(split: SmallTalkSplit) -> str:
    rows = [f"| {s.name} | {s.licence} | {s.use} | {s.origin} |" for s in (*SOURCES, OWN_SMALL_TALK)]
    held = ", ".join(str(number) for number in sorted(HELD_OUT_SCENARIOS))
    questions = sum(len(scenario.questions) for scenario in split.training)
    return "\n".join([
        "## Data\n", "| text | licence | used for | where it can be had |", "|---|---|---|---|", *rows, "",
        f"Styled small talk that was trained on: {len(split.training)} scenarios, {questions:,} questions.",
        f"Scenarios {held} of ms_personality_chat, a tenth of the wordings of its other scenarios, and some self",
        f"dialogues were held out from base model and head alike, as were {len(split.own)} of padlite's own scenarios;",
        "questions of padlite's own small talk that repeat a held-out scenario were dropped.",
    ])  # fmt: skip


def _size(out: Path, base: BaseFacts, recipe: Recipe, licence: str) -> str:
    files = sorted(path for path in out.iterdir() if path.suffix in {".gguf", ".onnx", ".data"})
    sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.2f} MB" for path in files)
    shape, parity = recipe.model, base.parity
    return (
        f"## Size\n\nLlama architecture: {shape.layers} layers, width {shape.width}, {shape.heads} heads, feed-"
        f"forward {shape.feed_forward}, {shape.vocabulary:,} tokens, context "
        f"{shape.context_length:,}; {recipe.weights.upper()}. {sizes}. Licence of the weights: {licence}.\n\n"
        f"llama.cpp on the quantized file against PyTorch, {parity.positions:,} positions: "
        f"least cosine of the logits {parity.cosine:.4f}, same best token at {100 * parity.top_one:.1f} %."
    )


def _training(measured: Measured, recipe: Recipe) -> str:
    base, head = measured.base, measured.head
    place = f"{recipe.base.threads} processor cores that were shared with other work, no GPU"
    lines = [f"## Training\n\nOn {place if base.device == 'cpu' else 'one GPU (CUDA)'}.\n"]
    for number, (phase, done) in enumerate(base.phases.items()):
        minutes = done.elapsed_s / 60
        if base.earlier is not None and number == 0:
            lines.append(
                f"- base, before: {minutes:.0f} minutes, {done.tokens:,} tokens, those of an earlier "
                f"{base.earlier.name} among them (base.gguf with the SHA-256 {base.earlier.sha256})"
            )
            continue
        lines.append(f"- base, {PHASES[phase]}: {minutes:.0f} minutes, {done.steps:,} steps, {done.tokens:,} tokens")
    if base.earlier is not None:
        lines.append(f"- base, as it is here: {GOING_ON_SHARE:.0%} of the weights after, the rest of those before")
    lines.append(
        f"- head: rank {head.rank}, {head.states:,} states of {head.answers:,} answers, best after epoch {head.epochs}"
        f"; share of the teacher's KL explained on validation scenarios: {head.explained:.2f}"
    )
    texts = measured.texts
    lines.append(
        f"- text map: {texts.texts} texts; of {texts.judged} everyday texts that it wasn't fitted to (five folds) the "
        f"strongest weight is that of the style asked for in {100 * texts.right:.0f} % (chance "
        f"{100 / len(STYLES):.0f} %), of {texts.without} that ask for nothing {100 * texts.quiet:.0f} % leave every "
        "weight small"
    )
    lines.append(
        f"\nHeld-out self dialogues: {base.held_out_loss:.2f} nats per token (perplexity "
        f"{math.exp(base.held_out_loss):.0f})."
    )
    return "\n".join(lines)


def _results(evaluation: Evaluation) -> str:
    missed, accuracy = shortfalls(evaluation), evaluation.classifier_accuracy
    verdict = f"Missed: {'; '.join(missed)}." if missed else "All are reached."
    return (
        f"## Held-out figures\n\nGreedy decoding, guidance strength {evaluation.strength:g}, {evaluation.candidates} "
        "candidates. The style of an answer is named by an independent classifier (n-grams, logistic regression) "
        "trained on the reference answers; on reference answers of scenarios it was not trained on it is right "
        f"{100 * accuracy[5]:.0f} % of the time among five styles (chance 0.20; wordings, scenarios) and "
        f"{100 * accuracy[8]:.0f} % among eight (chance 0.125; own scenarios).\n\n{table(evaluation)}\n\n"
        f"Bars: wanted style {BARS['wordings']:.2f} on held-out wordings and {BARS['scenarios']:.2f} on held-out "
        f"scenarios, guided at most {LOSS_BAR} nats per token worse than plain. {verdict}"
    )


def _rivals(name: str, compared: Compared) -> str:
    def cells(row: Standing) -> list[str]:
        way = row.rival + (f", {SETTING[row.rival]} = {row.strength:g}" if row.rival in SETTING else "")
        return [
            way, with_error(row.steering, row.steering_error), _number(row.perplexity), f"{row.distinct_2:.2f}",
            f"{row.flip_rate:.2f}", with_error(row.policy_accuracy, row.policy_error),
        ]  # fmt: skip

    lines = [f"| {' | '.join(cells(row))} |" for row in compared.means]
    return "\n".join([
        f"## Beside simpler ways, held-out {name}\n",
        f"`padlite eval`: {compared.means[0].answers} answers of each way, five styles (chance {compared.chance:.2f}),",
        "mean ± standard error over situations. Perplexity is that of the answers under the plain base, distinct-2 the",
        "share of different word pairs, flips the share of tokens that the guidance changed, policy accuracy the share",
        "of pairs whose preferred answer is the likelier one. The classifier is right on",
        f"{100 * compared.classifier_accuracy:.0f} % of answers that it hasn't seen.\n",
        "| way | wanted style | perplexity | distinct-2 | flips | policy accuracy |",
        "|---|---|---|---|---|---|", *lines,
    ])  # fmt: skip


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _examples(evaluation: Evaluation) -> str:
    chosen: list[Answered] = []
    for name in SETS:
        rows = evaluation.answered[name]
        step = max(1, len(rows) // EACH_SET)
        chosen += rows[step // 2 :: step][:EACH_SET]
    lines = ["| question | plain | " + " | ".join(STYLES) + " |", "|---" * (len(STYLES) + 2) + "|"]
    cells = [[row.question, *(row.answers.get(manner, "–") for manner in (PLAIN, *STYLES))] for row in chosen]
    lines += ["| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in row) + " |" for row in cells]
    return (
        f"## Side by side\n\nGreedy answers; {EACH_SET} questions of each held-out set: wordings, scenarios, own. "
        "Evenly spaced over the evaluation, not picked.\n\n" + "\n".join(lines)
    )


def _limits(evaluation: Evaluation) -> str:
    match = " and ".join(f"{evaluation.figures[name].match:.2f} on held-out {name}" for name in SETS)
    return (
        "## Limitations\n\n"
        "- English small talk only. It invents facts, misses the point of many questions, can't follow instructions.\n"
        f"- It often answers another question than the one asked: exactly the reference answer {match}.\n"
        "- Styles were learned from short answers; caring, friendly and professional overlap in them.\n"
        "- Its answer to thoughts of suicide names a US telephone line, as its text does. It is no help in need.\n"
        "- Conversations beyond a few hundred tokens were rare in training.\n"
        "- The guidance strength was chosen after looking at these held-out figures, so they are slightly optimistic."
    )
