"""Judges a bundle: does its head bend the answers, and do they stay sound?

    python -m padlite_training.evaluate --bundle models/padlite-tiny --work DIR

Greedy answers, plain and guided for each style, to held-out wordings and held-out scenarios, through padlite's own decoding
loop; an independent classifier names their style. Log-probabilities are under the base model, in nats per token, with the
end of the answer counted.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx import OnnxHead
from padlite.decode import Guidance, Token, decode
from padlite.options import DecodingOptions
from padlite.prompt import prompt_tokens
from padlite.scoring import log_normalizer
from padlite.template import ChatTemplate, Message
from padlite_training.chat_format import CHAT_TEMPLATE
from padlite_training.corpus import Corpus, load_corpus
from padlite_training.export_gguf import open_base
from padlite_training.split import Scenario
from padlite_training.style_classifier import StyleClassifier
from padlite_training.styles import SENTENCES, STYLES

ANSWER_LIMIT = 48
PLAIN, IN_PROMPT = "plain", "sentence"
BARS = {"wordings": 0.80, "scenarios": 0.50}
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
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Shares of answers in the wanted style, and mean log-probabilities under the base, over one set of questions."""

    questions: int
    scenarios: int
    guided: float
    plain: float
    sentence: float
    by_style: dict[str, float]
    plain_score: float
    guided_score: float
    match: float

    @property
    def loss(self) -> float:
        """How much worse than plain the guided answers are under the base, in nats per token."""
        return self.plain_score - self.guided_score


class Speaker:
    """Answers single questions with a bundle's base and head."""

    def __init__(self, base: LlamaModel, reward: OnnxHead | None, options: DecodingOptions) -> None:
        self.base, self.reward, self.options = base, reward, options
        self.template = ChatTemplate(CHAT_TEMPLATE)
        self._scratch = np.empty(base.vocabulary_size, dtype=np.float32)

    def answer(self, question: str, *, style: str = "", system: str = "", weight: float = 1.0) -> Reply:
        """Return the greedy answer, guided towards *style* unless it is empty, with *system* as the system turn."""
        weights = np.zeros(len(STYLES), dtype=np.float32)
        if style:
            weights[STYLES.index(style)] = weight
        guidance = Guidance(weights=weights, strength=self.options.strength)
        prompt = self._prompt(question, system)
        tokens, text = [], ""
        for event in decode(
            self.base, self.base.tokenizer, self.reward, prompt,
            options=self.options, guidance=guidance, rng=np.random.default_rng(0), cancelled=lambda: False,
        ):  # fmt: skip
            text += event.text
            if isinstance(event, Token):
                tokens.append(event.id)
        return Reply(text=text.strip(), score=self.score(self._prompt(question, ""), tokens), tokens=len(tokens))

    def score(self, prompt: Sequence[int], answer: Sequence[int]) -> float:
        """Return the mean log-probability of *answer* and of its end after *prompt* under the base, in nats."""
        state, total = self.base.prefill(prompt, sequence=1), 0.0
        for token in answer:
            total += float(state.logits[token]) - log_normalizer(state.logits, self._scratch)
            state = self.base.step(token, sequence=1)
        end = self.base.tokenizer.encode("<|im_end|>", special=True)[0]
        if len(answer) < ANSWER_LIMIT:
            total += float(state.logits[end]) - log_normalizer(state.logits, self._scratch)
        return total / (len(answer) + (len(answer) < ANSWER_LIMIT))

    def _prompt(self, question: str, system: str) -> list[int]:
        messages = [Message(role="system", content=system)] if system else []
        return prompt_tokens(
            self.template, self.base.tokenizer, [*messages, Message(role="user", content=question)]
        )


def questions_of(scenarios: Sequence[Scenario], *, each: int) -> list[Question]:
    """Return up to *each* questions of every scenario, drawn with a fixed seed."""
    chosen = []
    for scenario in scenarios:
        drawn = random.Random(scenario.name).sample(scenario.questions, min(each, len(scenario.questions)))
        chosen += [Question(text=text, scenario=scenario.name) for text in drawn]
    return chosen


def answer_all(speaker: Speaker, questions: Sequence[Question], *, sentences: bool) -> dict[str, list[Reply]]:
    """Return the answers to *questions* by manner: plain, each style, and 'sentence STYLE' if *sentences*."""
    replies = {PLAIN: [speaker.answer(question.text) for question in questions]}
    for style in STYLES:
        replies[style] = [speaker.answer(question.text, style=style) for question in questions]
        if sentences:
            system = SENTENCES[style][0]
            replies[f"{IN_PROMPT} {style}"] = [speaker.answer(q.text, system=system) for q in questions]
    return replies


def judge(
    replies: dict[str, list[Reply]], questions: Sequence[Question], classifier: StyleClassifier, known: dict[str, Scenario]
) -> Figures:
    """Return the figures of *replies*; *known* gives the reference answers of each scenario."""

    def share(manner: str, style: str) -> float:
        return float(np.mean([got == style for got in classifier.styles([r.text for r in replies[manner]])]))

    def score(manners: Sequence[str]) -> float:
        return float(np.mean([reply.score for manner in manners for reply in replies[manner]]))

    by_style = {style: share(style, style) for style in STYLES}
    has_sentences = f"{IN_PROMPT} {STYLES[0]}" in replies
    matches = [
        reply.text == known[question.scenario].answers[style]
        for style in STYLES
        for reply, question in zip(replies[style], questions, strict=True)
    ]
    return Figures(
        questions=len(questions),
        scenarios=len({question.scenario for question in questions}),
        guided=float(np.mean(list(by_style.values()))),
        plain=float(np.mean([share(PLAIN, style) for style in STYLES])),
        sentence=float(np.mean([share(f"{IN_PROMPT} {s}", s) for s in STYLES])) if has_sentences else float("nan"),
        by_style=by_style,
        plain_score=score([PLAIN]),
        guided_score=score(STYLES),
        match=float(np.mean(matches)),
    )


def evaluate(
    base: LlamaModel, reward: OnnxHead, corpus: Corpus, options: DecodingOptions, *, each: tuple[int, int], sentences: bool
) -> dict[str, object]:
    """Return everything measured, ready for JSON; *each* = questions per scenario of held-out wordings and scenarios."""
    split = corpus.small_talk
    reference = {scenario.name: scenario for scenario in (*split.training, *split.scenarios)}
    judged = [scenario for scenario in reference.values() if len(set(scenario.answers.values())) > 1]
    classifier = StyleClassifier(judged)
    speaker = Speaker(base, reward, options)
    result: dict[str, object] = {
        "strength": options.strength,
        "candidates": options.candidates,
        "classifier_accuracy_on_unseen_scenarios": classifier.accuracy_on_unseen_scenarios,
    }
    for name, scenarios, count in (("wordings", split.wordings, each[0]), ("scenarios", split.scenarios, each[1])):
        questions = questions_of(scenarios, each=count)
        replies = answer_all(speaker, questions, sentences=sentences)
        figures = judge(replies, questions, classifier, reference)
        result[name] = {**asdict(figures), "loss": figures.loss}
        result[f"{name}_answers"] = [
            {"question": q.text, "scenario": q.scenario, **{manner: replies[manner][i].text for manner in replies}}
            for i, q in enumerate(questions)
        ]
    return result


def table(result: dict[str, object]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| | held-out wordings | held-out scenarios |", "|---|---|---|"]
    rows = (
        ("questions", "questions", "d"), ("scenarios", "scenarios", "d"), ("wanted style, guided", "guided", ".2f"),
        ("wanted style, plain", "plain", ".2f"), ("wanted style, sentence in the prompt", "sentence", ".2f"),
        ("log-probability under the base, plain (nats per token)", "plain_score", ".2f"),
        ("log-probability under the base, guided", "guided_score", ".2f"), ("worse by", "loss", ".2f"),
        ("exactly the reference answer", "match", ".2f"),
    )  # fmt: skip
    sets = [result[name] for name in BARS]
    for title, key, form in rows:
        lines.append("| " + " | ".join([title, *(format(s[key], form) for s in sets if isinstance(s, dict))]) + " |")
    for style in STYLES:
        values = [format(s["by_style"][style], ".2f") for s in sets if isinstance(s, dict)]
        lines.append("| " + " | ".join([f"wanted style: {style}", *values]) + " |")
    return "\n".join(lines)


def shortfalls(result: dict[str, object]) -> list[str]:
    """Return a line for each bar that *result* misses."""
    missed = []
    for name, bar in BARS.items():
        figures = result[name]
        if isinstance(figures, dict) and figures["guided"] < bar:
            missed.append(f"{name}: wanted style {figures['guided']:.2f} is below {bar:.2f}")
        if isinstance(figures, dict) and figures["loss"] > LOSS_BAR:
            missed.append(f"{name}: {figures['loss']:.2f} nats per token worse than plain, more than {LOSS_BAR}")
    return missed


def main() -> None:
    """Evaluate a bundle and print the table; exit status 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description="Judge a bundle's reward head on held-out small talk.")
    parser.add_argument("--bundle", type=Path, required=True, help="folder with base.gguf and reward.onnx")
    parser.add_argument("--work", type=Path, required=True, help="the work folder of padlite_training.build")
    parser.add_argument("--strength", type=float, required=True, help="guidance strength β")
    parser.add_argument("--candidates", type=int, default=10, help="k")
    parser.add_argument("--quick", action="store_true", help="fewer questions, no sentences in the prompt")
    arguments = parser.parse_args()
    options = DecodingOptions(
        strength=arguments.strength, candidates=arguments.candidates, max_tokens=ANSWER_LIMIT
    )
    each = (2, 4) if arguments.quick else (4, 12)
    with open_base(arguments.bundle / "base.gguf") as base, OnnxHead.open(arguments.bundle / "reward.onnx") as reward:
        corpus = load_corpus(arguments.work / "corpus")
        result = evaluate(base, reward, corpus, options, each=each, sentences=not arguments.quick)
    (arguments.work / "evaluation.json").write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    print(table(result))
    if missed := shortfalls(result):
        raise SystemExit("\n".join(missed))


if __name__ == "__main__":
    main()
