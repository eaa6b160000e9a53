"""Small talk for the base model: questions, their answers, and which scenario they belong to."""

import numpy as np
import pytest

from padlite_training.corpus import Corpus, corpus_texts
from padlite_training.sampler import NO_TOPIC, OPENING_TOKENS, OPENING_WEIGHT, ChatWriter, Rows, Sampler
from padlite_training.split import Scenario, SmallTalkSplit
from padlite_training.styles import STYLES
from padlite_training.tokenizer import train_tokenizer

SCENARIOS = [
    Scenario(
        name=f"own-{number}",
        questions=(f"What about {thing}?", f"Do you like {thing}"),
        answers={style: f"{style} words about {thing}" for style in STYLES},
    )
    for number, thing in enumerate(("rain", "snow", "wind"))
]


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    split = SmallTalkSplit(training=tuple(SCENARIOS), wordings=(), scenarios=(), own=(), dropped=0)
    corpus = Corpus(small_talk=split, dialogues=(), held_out_dialogues=(), texts=())
    writer = ChatWriter(train_tokenizer(corpus_texts(corpus), vocabulary=300), user_weight=0.1)
    return Sampler(corpus, writer, seed=1)


def begun(rows: Rows, sampler: Sampler) -> list[tuple[Scenario, str, str]]:
    """Return, for every place with a topic, its scenario and the text of its document before and after."""
    decode = sampler.writer.tokenizer.decode
    found = []
    for row, place in np.argwhere(rows.topics != NO_TOPIC):
        same = rows.documents[row] == rows.documents[row, place]
        before, after = (
            rows.tokens[row][same & side] for side in (np.arange(same.size) <= place, np.arange(same.size) > place)
        )
        scenario = SCENARIOS[rows.topics[row, place]]
        found.append((scenario, decode(before.tolist()), decode(after.tolist())))
    return found


def test_a_topic_stands_between_a_question_and_its_answer(sampler: Sampler) -> None:
    found = begun(sampler.rows(4, 256), sampler)
    assert len(found) > 10
    for scenario, before, after in found:
        question = before.split("user\n")[-1].lower()
        assert any(wording.rstrip("?").lower() in question for wording in scenario.questions), before
        assert not after or any(answer.startswith(after[:12]) for answer in scenario.answers.values()), after


def test_questions_alone_come_with_their_topics_and_count_for_no_token(sampler: Sampler) -> None:
    rows = sampler.questions(4, 256)
    assert not rows.weights.any()
    found = begun(rows, sampler)
    assert {scenario.name for scenario, _, _ in found} == {scenario.name for scenario in SCENARIOS}
    assert all(not after for _, _, after in found)


def test_the_first_tokens_of_an_answer_count_most(sampler: Sampler) -> None:
    writer = sampler.writer
    answer = writer.encode("witty words about rain")
    for length in (2, len(answer)):
        said = writer.turn("assistant", answer[:length], 1.0, 2)
        begin = said.topics.index(2) + 1
        opening = min(OPENING_TOKENS, length)
        counted = [OPENING_WEIGHT] * opening + [1.0] * (length - opening + 1)
        assert said.weights[begin : begin + length + 1] == counted
    assert max(writer.turn("assistant", answer, 1.0).weights) == 1.0
