"""An independent judge of answers: which dimension a text shows most, by n-grams of characters and words.

It learns from reference answers only and never sees the model, its hidden states or its tokens. Its own accuracy on
answers of groups that it was not trained on says how far its verdicts can be trusted.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from padlite.errors import UsageError

FOLDS = 5
WORD = r"\w+|[^\w\s]"


class AnswerClassifier:
    """Says which of the labels that it was trained on a text has."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str], groups: Sequence[str]) -> None:
        """Learn *labels* of *texts*; *groups* are kept together when its own accuracy is measured."""
        self.labels = tuple(sorted(set(labels)))
        folds = min(FOLDS, len(set(groups)))
        if len(self.labels) < 2 or folds < 2:
            raise UsageError(
                "a classifier needs answers of at least two dimensions and two groups",
                remedy="give more pairs with --reference",
            )
        predicted = cross_val_predict(_pipeline(), texts, labels, groups=groups, cv=GroupKFold(folds))
        self.accuracy = float(np.mean(predicted == np.array(labels)))
        self._pipeline = _pipeline().fit(texts, labels)

    def name(self, texts: Sequence[str]) -> list[str]:
        """Return the label of each of *texts*."""
        return [str(label) for label in self._pipeline.predict(list(texts))] if texts else []


def _pipeline() -> Pipeline:
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True, lowercase=False)
    words = TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True, token_pattern=WORD)
    return make_pipeline(make_union(characters, words), LogisticRegression(C=30.0, max_iter=2000))
