"""The figures of a bundle on held-out small talk are what their names say."""

from padlite_training.evaluate import PLAIN, Question, Reply, judge
from padlite_training.split import Scenario
from padlite_training.style_classifier import StyleClassifier

STYLES = ("concise", "witty")
SCENARIOS = [
    Scenario(name=f"own-{n}", questions=("?",), answers={"concise": f"Yes {n}.", "witty": f"Ask the {n} cats, dear!"})
    for n in range(6)
]


def test_an_empty_answer_shows_no_style() -> None:
    classifier = StyleClassifier(SCENARIOS, STYLES)
    questions = [Question(text="?", scenario="own-0"), Question(text="??", scenario="own-1")]
    said = [Reply(text="Yes 7.", score=-1.0), Reply(text="", score=-1.0)]
    whatever = classifier.styles([""])[0]
    replies = {PLAIN: said, "concise": said, "witty": [said[1], said[1]]}
    figures = judge(replies, questions, classifier, {each.name: each for each in SCENARIOS}, STYLES)
    assert whatever in STYLES
    assert figures.by_style == {"concise": 0.5, "witty": 0.0}
    assert figures.plain == 0.25
