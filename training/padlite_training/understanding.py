"""Does a base understand what it is asked, in words that it has never seen?

    python -m padlite_training.understanding --bundle models/padlite-tiny

`data/new_wordings.jsonl` asks about 160 of padlite's own situations in words that are in no training text. The greedy
plain answer counts as *right* if it is one of the situation's own answers, and as *near* if the situation is among the
three whose answers resemble it most (cosine of TF-IDF over words and pairs of words). Many situations are close to each
other, so even a good answer often counts as neither: compare models by this, don't read it as a share of good answers.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from padlite.bundle import load_bundle
from padlite.options import DecodingOptions
from padlite_training.base_gguf import open_base
from padlite_training.corpus import read_small_talk
from padlite_training.endings import told_plainly
from padlite_training.evaluate import ANSWER_LIMIT, Question, Speaker
from padlite_training.samples import data_lines
from padlite_training.split import Scenario

NEAREST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Understanding:
    """Shares of answers, from 0 to 1, over so many *questions*."""

    questions: int
    right: float
    near: float


class Understander:
    """Judges answers by the reference answers of *scenarios*."""

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self._names = [scenario.name for scenario in scenarios]
        self._answers = {scenario.name: {_plain(text) for text in scenario.answers.values()} for scenario in scenarios}
        self._words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
        self._known = self._words.fit_transform(" ".join(scenario.answers.values()) for scenario in scenarios)

    def judge(self, questions: Sequence[Question], answers: Sequence[str]) -> Understanding:
        """Return how well *answers* fit the scenarios of *questions*."""
        alike = (self._words.transform(answers) @ self._known.T).toarray()
        right, near = [], []
        for question, answer, row in zip(questions, answers, alike, strict=True):
            right.append(_plain(answer) in self._answers[question.scenario])
            nearest = [place for place in np.argsort(-row)[:NEAREST] if row[place] > 0]
            near.append(question.scenario in {self._names[place] for place in nearest})
        return Understanding(questions=len(questions), right=float(np.mean(right)), near=float(np.mean(near)))


def new_questions() -> list[Question]:
    """Return the questions in new wordings."""
    rows = data_lines("new_wordings.jsonl")
    return [Question(text=str(row["question"]), scenario=str(row["scenario"])) for row in rows]


def understanding(base_path: Path) -> Understanding:
    """Let the base at *base_path* answer the new wordings, and judge the answers."""
    questions = new_questions()
    with open_base(base_path) as base:
        speaker = Speaker(base, None, DecodingOptions(max_tokens=ANSWER_LIMIT))
        answers = [speaker.answer(question.text, scored=False).text for question in questions]
    split = read_small_talk(None)
    return Understander((*split.training, *split.own)).judge(questions, answers)


def _plain(text: str) -> str:
    return text.strip().lower()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures of the bundle named on the command line."""
    parser = argparse.ArgumentParser(description="Ask a bundle's base in words that it has never seen.")
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    options = parser.parse_args(arguments)
    with told_plainly():
        found = understanding(load_bundle(options.bundle).base)
    print(f"{found.questions} questions in new words: {found.right:.3f} right, {found.near:.3f} near")


if __name__ == "__main__":
    main()
