"""An independent judge of style: n-grams of characters and words into a logistic regression.

It is trained on reference answers only and never sees the model, its hidden states or its tokens. Its own accuracy on
reference answers of scenarios that it was not trained on says how far its verdicts can be trusted.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from padlite_training.split import Scenario

WORD = r"\w+|[^\w\s]"


class StyleClassifier:
    """Says which of *styles* a text has; learns from the scenarios that come in all of them."""

    def __init__(self, scenarios: Sequence[Scenario], styles: Sequence[str]) -> None:
        complete = [scenario for scenario in scenarios if set(styles) <= set(scenario.answers)]
        texts = [scenario.answers[style] for scenario in complete for style in styles]
        labels = [style for _ in complete for style in styles]
        groups = np.repeat(np.arange(len(complete)), len(styles))
        predicted = cross_val_predict(_pipeline(), texts, labels, groups=groups, cv=GroupKFold(10))
        self.accuracy_on_unseen_scenarios = float(np.mean(predicted == np.array(labels)))
        self._pipeline = _pipeline().fit(texts, labels)

    def styles(self, texts: Sequence[str]) -> list[str]:
        """Return the style of each of *texts*."""
        return [str(style) for style in self._pipeline.predict(list(texts))] if texts else []


def _pipeline() -> Pipeline:
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True, lowercase=False)
    words = TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True, token_pattern=WORD)
    return make_pipeline(make_union(characters, words), LogisticRegression(C=30.0, max_iter=2000))
