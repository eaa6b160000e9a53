"""Makes preference pairs from the small talk: the answer in the wanted style is preferred to one in another style.

    python -m padlite_training.style_pairs --out DIR [--data TEXT]

Writes `train.jsonl`, and to judge by, which nothing may be trained on: `own.jsonl` (situations that the bundled model
has never seen, in eight styles); with --data also `scenarios.jsonl` (such situations of the public small talk, in the
five styles that it comes in) and `wordings.jsonl` (other wordings of seen ones); and the texts that say a style in
words, `instructions.jsonl` and `everyday.jsonl`. In every situation each style is
preferred as often as it is turned down, so a model that ignores what is wanted is right in half of the pairs.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from padlite_training.corpus import read_small_talk
from padlite_training.endings import told_plainly
from padlite_training.preference_texts import EVERYDAY, instructions, merged, read_texts, write_texts
from padlite_training.split import Scenario
from padlite_training.styles import PUBLIC_STYLES, STYLES

IN_WORDS_EVERY = 3
"""Every third round of pairs says in words what is preferred, for the second stage of the training."""

WORDINGS_A_ROUND = 5
"""A situation has a round of pairs for so many of its wordings, if that is more than asked for."""

NEUTRAL_SHARE = 0.1
"""Of these pairs say something that asks for neither answer, and prefer either of the two."""


def pairs_of(
    scenario: Scenario, *, styles: Sequence[str], rounds: int, in_words: bool, seed: int
) -> Iterator[dict[str, str]]:
    """Yield pairs for each of *styles* that *scenario* has, as records of a file of pairs.

    There are *rounds* of them, or more for a scenario that many people put into words (`WORDINGS_A_ROUND`). In a round
    the styles stand in a circle, and each is preferred to the next one; styles that share an answer are left out of it.
    *in_words*: some rounds name a preference instead of a dimension.
    """
    rng, told = random.Random(f"{seed} {scenario.name}"), merged([instructions(), read_texts(EVERYDAY)])
    for number in range(max(rounds, len(scenario.questions) // WORDINGS_A_ROUND)):
        circle = _different(scenario, styles, rng)
        question = rng.choice(scenario.questions)
        for style, other in zip(circle, [*circle[1:], *circle[:1]], strict=True):
            if style == other:
                continue
            wanted, answers = {"dimension": style}, (scenario.answers[style], scenario.answers[other])
            if in_words and number % IN_WORDS_EVERY == IN_WORDS_EVERY - 1:
                wanted = {"preference": rng.choice(told[style])}
                if rng.random() < NEUTRAL_SHARE:
                    wanted = {"preference": rng.choice(told[None])}
                    answers = answers if rng.random() < 0.5 else answers[::-1]
            yield {
                "prompt": question, "chosen": answers[0], "rejected": answers[1],
                **wanted, "group": scenario.name,
            }  # fmt: skip


def _different(scenario: Scenario, wanted: Sequence[str], rng: random.Random) -> list[str]:
    """Return the styles of *wanted* that *scenario* has, in random order, one for each of its answers."""
    styles = [style for style in wanted if style in scenario.answers]
    rng.shuffle(styles)
    return [style for at, style in enumerate(styles) if scenario.answers[style] not in
            {scenario.answers[other] for other in styles[:at]}]  # fmt: skip


def write_pairs(
    path: Path, scenarios: Sequence[Scenario], *, styles: Sequence[str], rounds: int, in_words: bool, seed: int
) -> int:
    """Write the pairs of *scenarios* to *path* and return how many there are."""
    records = [
        pair
        for each in scenarios
        for pair in pairs_of(each, styles=styles, rounds=rounds, in_words=in_words, seed=seed)
    ]
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return len(records)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files that the command line asks for."""
    parser = argparse.ArgumentParser(description="Make preference pairs from the small talk.")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the files")
    parser.add_argument("--data", type=Path, help="folder of the public text (training/README.md)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs for each style and situation, at least")
    parser.add_argument("--situations", type=int, default=820, help="how many of padlite's own situations are taken")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with told_plainly():
        split = read_small_talk(options.data, situations=options.situations)
        options.out.mkdir(parents=True, exist_ok=True)
        parts = {
            "train": (split.training, STYLES),
            "wordings": (split.wordings, PUBLIC_STYLES),
            "scenarios": (split.scenarios, PUBLIC_STYLES),
            "own": (split.own, STYLES),
        }
        write_texts(options.out / "instructions.jsonl", instructions())
        write_texts(options.out / "everyday.jsonl", read_texts(EVERYDAY))
        for name, (scenarios, styles) in parts.items():
            if scenarios:
                path = options.out / f"{name}.jsonl"
                count = write_pairs(
                    path, scenarios, styles=styles, rounds=options.rounds, in_words=name == "train", seed=options.seed
                )
                print(f"{path}: {count} pairs from {len(scenarios)} situations")


if __name__ == "__main__":
    main()
