"""Judges a bundle: does its head bend the answers, and do they stay sound?

    python -m padlite_training.evaluate --bundle models/padlite-tiny --work DIR

Greedy answers, plain and guided for each style, to held-out wordings and held-out scenarios of the public small talk
(five styles) and of padlite's own (eight), through padlite's own decoding loop; an independent classifier names their
style. Log-probabilities are under the base model, in nats per
token, with the end of the answer counted.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx import OnnxHead
from padlite.decode import Guidance, Token, decode
from padlite.options import DecodingOptions
from padlite.prompt import prompt_tokens
from padlite.scoring import log_normalizer
from padlite.seams import RewardModel
from padlite.template import ChatTemplate, Message
from padlite_training.base_gguf import open_base
from padlite_training.chat_format import CHAT_TEMPLATE, TURN_END
from padlite_training.corpus import load_small_talk
from padlite_training.endings import told_plainly
from padlite_training.facts import Answered, Evaluation, Figures
from padlite_training.recipe import Recipe
from padlite_training.split import Scenario, SmallTalkSplit
from padlite_training.style_classifier import StyleClassifier
from padlite_training.styles import PUBLIC_STYLES, SENTENCES, STYLES

ANSWER_LIMIT = 48
QUESTIONS_EACH = (2, 4, 2)
"""Questions per scenario of each of `SETS`."""

PLAIN, SENTENCE = "plain", "sentence"
SETS: dict[str, tuple[str, ...]] = {"wordings": PUBLIC_STYLES, "scenarios": PUBLIC_STYLES, "own scenarios": STYLES}
"""What is asked, and in which styles: held-out wordings, scenarios, and padlite's own scenarios."""
BARS = {"wordings": 0.90, "scenarios": 0.70}
LOSS_BAR = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A held-out question and the scenario that it belongs to."""

    text: str
    scenario: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One greedy answer; *score* is its mean log-probability per token under the plain base, in nats."""

    text: str
    score: float


class Speaker:
    """Answers single questions with a base and a reward model."""

    def __init__(self, base: LlamaModel, reward: RewardModel | None, options: DecodingOptions) -> None:
        self.base, self.reward, self.options = base, reward, options
        self.template = ChatTemplate(CHAT_TEMPLATE)
        self._scratch = np.empty(base.vocabulary_size, dtype=np.float32)
        self._end = base.tokenizer.encode(TURN_END, special=True)[0]

    def answer(self, question: str, *, style: str = "", system: str = "", scored: bool = True) -> Reply:
        """Return the greedy answer, guided towards *style* unless it is empty, with *system* as the system turn."""
        dimensions = self.reward.dimensions if self.reward else ()
        weights = np.array([float(each.name == style) for each in dimensions], dtype=np.float32)
        tokens, text = [], ""
        for event in decode(
            self.base, self.base.tokenizer, self.reward, self._prompt(question, system),
            options=self.options, guidance=Guidance(weights=weights, strength=self.options.strength),
            rng=np.random.default_rng(0), cancelled=lambda: False,
        ):  # fmt: skip
            text += event.text
            if isinstance(event, Token):
                tokens.append(event.id)
        score = self.score(self._prompt(question, ""), tokens) if scored else 0.0
        return Reply(text=text.strip(), score=score)

    def score(self, prompt: Sequence[int], answer: Sequence[int]) -> float:
        """Return the mean log-probability of *answer* and of its end after *prompt* under the base, in nats."""
        counted = [*answer, self._end] if len(answer) < self.options.max_tokens else [*answer]
        state, total = self.base.prefill(prompt, sequence=1), 0.0
        for number, token in enumerate(counted):
            total += float(state.logits[token]) - log_normalizer(state.logits, self._scratch, peak=state.logits.max())
            if number + 1 < len(counted):
                state = self.base.step(token, sequence=1)
        return total / len(counted)

    def _prompt(self, question: str, system: str) -> list[int]:
        messages = [Message(role="system", content=system)] if system else []
        messages.append(Message(role="user", content=question))
        return prompt_tokens(self.template, self.base.tokenizer, messages)


def questions_of(scenarios: Sequence[Scenario], *, each: int) -> list[Question]:
    """Return up to *each* questions of every scenario, drawn with a fixed seed."""
    chosen = []
    for scenario in scenarios:
        drawn = random.Random(scenario.name).sample(scenario.questions, min(each, len(scenario.questions)))
        chosen += [Question(text=text, scenario=scenario.name) for text in drawn]
    return chosen


def answer_all(
    speaker: Speaker, questions: Sequence[Question], styles: Sequence[str], *, sentences: bool
) -> dict[str, list[Reply]]:
    """Return the answers to *questions* by manner: plain, each of *styles*, and 'sentence STYLE' if *sentences*."""
    replies = {PLAIN: [speaker.answer(question.text) for question in questions]}
    for style in styles:
        replies[style] = [speaker.answer(question.text, style=style) for question in questions]
        if sentences:
            asked = [speaker.answer(q.text, system=SENTENCES[style][0]) for q in questions]
            replies[f"{SENTENCE} {style}"] = asked
    return replies


def judge(
    replies: dict[str, list[Reply]],
    questions: Sequence[Question],
    classifier: StyleClassifier,
    known: dict[str, Scenario],
    styles: Sequence[str],
) -> Figures:
    """Return the figures of *replies* in *styles*; *known* gives the reference answers of each scenario.

    An empty answer shows no style.
    """

    def share(manner: str, style: str) -> float:
        texts = [reply.text for reply in replies[manner]]
        return float(
            np.mean([got == style and bool(text) for got, text in zip(classifier.styles(texts), texts, strict=True)])
        )

    def score(manners: Sequence[str]) -> float:
        return float(np.mean([reply.score for manner in manners for reply in replies[manner]]))

    asked = [style for style in styles if f"{SENTENCE} {style}" in replies]
    by_style = {style: share(style, style) for style in styles}
    matches = [
        reply.text == known[question.scenario].answers[style]
        for style in styles
        for reply, question in zip(replies[style], questions, strict=True)
    ]
    return Figures(
        questions=len(questions),
        scenarios=len({question.scenario for question in questions}),
        guided=float(np.mean(list(by_style.values()))),
        plain=float(np.mean([share(PLAIN, style) for style in styles])),
        sentence=float(np.mean([share(f"{SENTENCE} {style}", style) for style in asked])) if asked else None,
        by_style=by_style,
        plain_score=score([PLAIN]),
        guided_score=score(styles),
        sentence_score=score([f"{SENTENCE} {style}" for style in asked]) if asked else None,
        match=float(np.mean(matches)),
    )


def evaluate(
    base: LlamaModel,
    reward: RewardModel | None,
    split: SmallTalkSplit,
    options: DecodingOptions,
    *,
    each: tuple[int, int, int] = QUESTIONS_EACH,
    sentences: bool = True,
) -> Evaluation:
    """Return everything measured; *each* = questions per scenario of each of `SETS`."""
    known = {scenario.name: scenario for scenario in (*split.training, *split.scenarios, *split.own)}
    judged = [each for each in known.values() if len(set(each.answers.values())) > 1]
    classifiers: dict[tuple[str, ...], StyleClassifier] = {
        styles: StyleClassifier(judged, styles) for styles in (PUBLIC_STYLES, STYLES)
    }
    speaker = Speaker(base, reward, options)
    figures, answered = {}, {}
    held_out = (split.wordings, split.scenarios, split.own)
    for (name, styles), scenarios, count in zip(SETS.items(), held_out, each, strict=True):
        questions = questions_of(scenarios, each=count)
        replies = answer_all(speaker, questions, styles, sentences=sentences)
        figures[name] = judge(replies, questions, classifiers[styles], known, styles)
        answered[name] = [
            Answered(
                question=q.text, scenario=q.scenario, answers={manner: replies[manner][i].text for manner in replies}
            )
            for i, q in enumerate(questions)
        ]
    return Evaluation(
        strength=options.strength,
        candidates=options.candidates,
        classifier_accuracy={len(s): each.accuracy_on_unseen_scenarios for s, each in classifiers.items()},
        figures=figures,
        answered=answered,
    )


def table(evaluation: Evaluation) -> str:
    """Return the figures as a Markdown table."""
    sets = [evaluation.figures[name] for name in SETS]
    rows: list[tuple[str, list[float | None]]] = [
        ("wanted style, guided by the head", [each.guided for each in sets]),
        *[_style_row(style, sets) for style in STYLES],
        ("wanted style, plain", [each.plain for each in sets]),
        ("wanted style, sentence in the prompt", [each.sentence for each in sets]),
        ("log-probability under the base, plain (nats per token)", [each.plain_score for each in sets]),
        ("log-probability under the base, guided", [each.guided_score for each in sets]),
        ("log-probability under the base, sentence in the prompt", [each.sentence_score for each in sets]),
        ("guided worse by", [each.loss for each in sets]),
        ("guided answer is exactly the reference answer", [each.match for each in sets]),
    ]
    head = " | ".join(
        f"held-out {name} ({s.questions} questions, {s.scenarios} scenarios)"
        for name, s in zip(SETS, sets, strict=True)
    )
    lines = [f"| | {head} |", "|---|---|---|---|"]
    for title, values in rows:
        lines.append(f"| {title} | " + " | ".join("–" if v is None else f"{v:.2f}" for v in values) + " |")
    return "\n".join(lines)


def _style_row(style: str, sets: Sequence[Figures]) -> tuple[str, list[float | None]]:
    return f"wanted style, {style}", [each.by_style.get(style) for each in sets]


def shortfalls(evaluation: Evaluation) -> list[str]:
    """Return a line for each bar that is missed."""
    missed = []
    for name, bar in BARS.items():
        figures = evaluation.figures[name]
        if figures.guided < bar:
            missed.append(f"{name}: wanted style {figures.guided:.2f} is below {bar:.2f}")
        if figures.loss > LOSS_BAR:
            missed.append(f"{name}: {figures.loss:.2f} nats per token worse than plain, more than {LOSS_BAR}")
    return missed


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate a bundle and print the table; exit status 1 when a bar is missed."""
    defaults = Recipe()
    parser = argparse.ArgumentParser(description="Judge a bundle's reward head on held-out small talk.")
    parser.add_argument("--bundle", type=Path, required=True, help="folder with base.gguf and reward.onnx")
    parser.add_argument("--work", type=Path, required=True, help="the work folder of padlite_training.build")
    parser.add_argument("--strength", type=float, default=defaults.strength, help="guidance strength β")
    parser.add_argument("--candidates", type=int, default=defaults.candidates, help="k")
    parser.add_argument("--quick", action="store_true", help="fewer questions, no sentences in the prompt")
    options = parser.parse_args(arguments)
    each = (1, 3, 1) if options.quick else QUESTIONS_EACH
    with told_plainly():
        decoding = DecodingOptions(strength=options.strength, candidates=options.candidates, max_tokens=ANSWER_LIMIT)
        split = load_small_talk(options.work / "corpus")
        with open_base(options.bundle / "base.gguf") as base, OnnxHead.open(options.bundle / "reward.onnx") as reward:
            evaluation = evaluate(base, reward, split, decoding, each=each, sentences=not options.quick)
        evaluation.save(options.work / f"evaluation-{options.strength:g}.json")
    print(table(evaluation))
    if missed := shortfalls(evaluation):
        raise SystemExit("\n".join(missed))


if __name__ == "__main__":
    main()
