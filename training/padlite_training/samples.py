"""Lets a bundle talk, for people to read: 30 short conversations, and 100 prompts whose answers are to be on topic.

    python -m padlite_training.samples --bundle models/padlite-tiny --out docs/samples.md

Greedy answers through `Session`, as the chat gives them. Nothing is picked, left out or tried twice; whether an answer
is on topic is for a reader to say, and the verdicts are kept beside the prompts (`data/on_topic_verdicts.json`).
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from padlite.backends.onnx import OnnxHead
from padlite.bundle import load_bundle
from padlite.opening import chat_template
from padlite.options import DecodingOptions
from padlite.session import Finished, Session
from padlite_training.base_gguf import open_base

ANSWER_LIMIT = 60
VERDICTS = "on_topic_verdicts.json"
ABOUT = (
    "Greedy answers, as the chat gives them. Nothing is picked, left out or tried twice. Whether an answer is on topic "
    "was judged by reading; a verdict counts only for the very answer that was read."
)


def data_text(name: str) -> str:
    """Return the text of a file of this package's data."""
    return resources.files("padlite_training").joinpath("data", name).read_text(encoding="utf-8")


def data_lines(name: str) -> list[dict[str, object]]:
    """Return the rows of a JSON-lines file of this package's data."""
    return [json.loads(line) for line in data_text(name).splitlines() if line.strip()]


class Talker:
    """Talks through a bundle's base and head."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = load_bundle(folder)

    def conversations(self, asked: Sequence[tuple[Mapping[str, float], Sequence[str]]]) -> list[list[str]]:
        """Return the answers of each conversation, given by its weights and the person's turns."""
        answers = []
        options = DecodingOptions(
            strength=self.bundle.strength, candidates=self.bundle.candidates, max_tokens=ANSWER_LIMIT
        )
        with open_base(self.bundle.base) as base, OnnxHead.open(self.folder / "reward.onnx", device="cpu") as reward:
            template = chat_template(base)
            for weights, turns in asked:
                session = Session(
                    base=base, tokenizer=base.tokenizer, template=template, reward=reward, weights=weights,
                    options=options,
                )  # fmt: skip
                answers.append([_answer(session, turn) for turn in turns])
        return answers


def _answer(session: Session, turn: str) -> str:
    *_, last = session.say(turn)
    return last.answer.text if isinstance(last, Finished) else ""


def page(talker: Talker) -> str:
    """Return the page of samples as Markdown."""
    conversations = data_lines("conversations.jsonl")
    asked = [(_weights(row["weights"]), _turns(row["turns"])) for row in conversations]
    lines = [f"# What {talker.bundle.name} says", "", f"Written by `python -m padlite_training.samples`. {ABOUT}", ""]
    lines += ["## Conversations", ""]
    for (weights, turns), answers in zip(asked, talker.conversations(asked), strict=True):
        wanted = ", ".join(f"{name} {value:g}" for name, value in weights.items()) or "no preferences"
        lines += [f"**{wanted}**", ""]
        lines += [
            line for turn, answer in zip(turns, answers, strict=True) for line in (f"> {turn}  ", f"{answer}", "")
        ]
    prompts = data_lines("on_topic.jsonl")
    replies = [answers[0] for answers in talker.conversations([({}, [str(row["prompt"])]) for row in prompts])]
    lines += ["## On topic", "", *on_topic(prompts, replies)]
    return "\n".join(lines) + "\n"


def on_topic(prompts: Sequence[Mapping[str, object]], replies: Sequence[str]) -> list[str]:
    """Return the table of prompts, answers and the reader's verdicts; an answer that nobody has judged has a `?`."""
    verdicts: dict[str, dict[str, bool]] = json.loads(data_text(VERDICTS))
    judged = [verdicts.get(str(row["prompt"]), {}).get(reply) for row, reply in zip(prompts, replies, strict=True)]
    rows = ["| kind | prompt | answer | on topic |", "|---|---|---|---|"]
    for row, reply, verdict in zip(prompts, replies, judged, strict=True):
        mark = "?" if verdict is None else "yes" if verdict else "no"
        rows.append(f"| {row['kind']} | {row['prompt']} | {reply.replace('|', chr(92) + '|')} | {mark} |")
    count = (
        f"{judged.count(True)} of {len(prompts)} answers are on topic, {judged.count(False)} are not, "
        f"{judged.count(None)} have not been judged. The prompts were written before the model was trained."
    )
    return [count, "", *rows]


def _weights(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        raise TypeError("weights must be a table")
    return {str(name): float(weight) for name, weight in value.items()}


def _turns(value: object) -> list[str]:
    if not isinstance(value, list):
        raise TypeError("turns must be a list")
    return [str(turn) for turn in value]


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description="Let a bundle talk, for people to read.")
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--out", type=Path, required=True, help="the Markdown file to write")
    arguments = parser.parse_args()
    arguments.out.write_text(page(Talker(arguments.bundle)), encoding="utf-8")


if __name__ == "__main__":
    main()
