"""The independent judge of the small talk's styles; it learns from the answers of the scenarios."""

from collections.abc import Sequence

from padlite_training.judging.classifier import AnswerClassifier
from padlite_training.split import Scenario


class StyleClassifier:
    """Says which of *styles* a text has; learns from the scenarios that come in all of them."""

    def __init__(self, scenarios: Sequence[Scenario], styles: Sequence[str]) -> None:
        complete = [scenario for scenario in scenarios if set(styles) <= set(scenario.answers)]
        texts = [scenario.answers[style] for scenario in complete for style in styles]
        groups = [scenario.name for scenario in complete for _ in styles]
        self._classifier = AnswerClassifier(texts, [style for _ in complete for style in styles], groups)
        self.accuracy_on_unseen_scenarios = self._classifier.accuracy

    def styles(self, texts: Sequence[str]) -> list[str]:
        """Return the style of each of *texts*."""
        return self._classifier.name(texts)
