"""PAD's claim put to the test: preferences that no stage of the training saw, said in words.

    python -m padlite_training.pairs.leave_out --model padlite-tiny --pairs train.jsonl --texts texts.jsonl --work DIR

In each fold two dimensions A and B are left out of both stages, with every pair that holds one of their answers. Then
texts that ask for A, or for B, choose weights of the *other* dimensions through the map, and are judged on answers to
the same prompts of held-out groups: is A's answer likelier than B's under a text for A, and B's than A's under one for
B? A model that doesn't hear the text is right in exactly half of these pairs, whatever it likes by itself. Standard
errors are over groups. Every text of the kept dimensions may be trained on, none of the left-out ones.
"""

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from padlite.backends.llama import LlamaModel
from padlite.contrast import SentencePlace
from padlite.errors import UsageError
from padlite.opening import chat_template
from padlite.options import EngineOptions
from padlite.seams import FloatArray
from padlite_training.commands import GOES_ON, Progress, base_of, stoppable
from padlite_training.completions import Completions
from padlite_training.endings import told_plainly
from padlite_training.head_file import balanced, output_table
from padlite_training.means import Values, mean_and_error
from padlite_training.pairs.calibration import PlainStates, calibrated, plain_states
from padlite_training.pairs.fit import FittedHead, PairBatches, fit_pairs, one_hot
from padlite_training.pairs.harvest import Harvester, PairHarvest, file_sha256, plan_harvest
from padlite_training.pairs.reading import Pair, PairsError, read_pairs
from padlite_training.pairs.recipe import PairTraining
from padlite_training.pairs.split import split_by_group
from padlite_training.pairs.text_stage import (
    ToldPairs,
    divide_texts,
    fit_texts,
    head_features,
    judge_texts,
    judged_by,
)  # fmt: skip
from padlite_training.pairs.text_training import TextStage, read_length, weights_of
from padlite_training.pairs.training import numbers_of, spread
from padlite_training.preference_texts import Texts, merged, read_texts
from padlite_training.records import json_text

DRAWS = 4
"""Texts that each judged pair is judged under."""

_PROMPTS = 48
_NEUTRAL_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The shares of left-out pairs that are right, and the group of each, to put several folds together."""

    right: list[bool]
    groups: list[str]

    def figures(self) -> tuple[float, float | None]:
        """Return the share that is right and its standard error over groups; none for a single group."""
        share, error = mean_and_error([Values.of_shares(self.right, self.groups)])
        return share or 0.0, error


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One prompt of one group with the answers that were given to it, by dimension: numbers of completions."""

    group: str
    answers: Mapping[str, int]


class LeavingOut:
    """The harvest of all pairs, and the folds on it."""

    def __init__(
        self, pairs: Sequence[Pair], path: Path, base: LlamaModel, base_path: Path, work: Path, plan: PairTraining
    ) -> None:
        self.pairs, self.base, self.plan = pairs, base, plan
        self.split = split_by_group(path, pairs)
        self.names = sorted({pair.dimension for pair in pairs if pair.dimension is not None})
        texts = Completions(chat_template(base), base.tokenizer)
        wanted = plan_harvest(path, pairs, texts, candidates=32, room=base.context_length)
        self.harvester = Harvester(work, wanted, hidden_size=base.hidden_size, base_sha256=file_sha256(base_path))
        self.table = output_table(base_path)
        self.prompts = sorted({tuple(texts.prompt(pair.messages)) for pair in self.split.held_out})
        self.chosen = {
            (pair.group, text) : name
            for pair in pairs
            for name, text in ((pair.dimension, pair.chosen),)
            if name is not None and pair.weight > 0
        }  # fmt: skip

    def cases(self) -> list[Case]:
        """Return the prompts of held-out groups with the answers that belong to a dimension."""
        found: dict[tuple[str, str], dict[str, int]] = {}
        held = {pair.line for pair in self.split.held_out}
        for at, pair in enumerate(self.pairs):
            if pair.line in held and pair.dimension is not None and pair.weight > 0:
                key = pair.group, repr(pair.messages)
                found.setdefault(key, {})[pair.dimension] = int(self.harvester.plan.sides[at, 0])
        return [Case(group=group, answers=answers) for (group, _), answers in found.items()]

    def fold(
        self,
        left_out: tuple[str, str],
        harvest: PairHarvest,
        plain: PlainStates,
        texts: Texts,
        judged: Mapping[str, Texts],
    ) -> dict[str, Judged]:
        """Return how texts for *left_out* do, by source of text."""
        kept = [name for name in self.names if name not in left_out]
        usable = self._without(left_out)
        weights = one_hot(kept, [pair.dimension if pair.dimension in kept else None for pair in self.pairs],
                          [pair.weight for pair in self.pairs])  # fmt: skip
        batches = PairBatches(harvest, self.table, weights, device="cpu")
        training, held = (
            np.array([at for at in numbers_of(self.pairs, part) if usable[at]], dtype=np.int64)
            for part in (self.split.training, self.split.held_out)
        )
        head = fit_pairs(batches, training, held, self.plan)
        head = calibrated(head, plain, self.table, names=kept, shift=self.plan.mean_shift_nats)
        rows, maps = balanced(head, self.table)
        stage = TextStage(base=self.base, batches=batches, head=head, features=head_features(rows, maps), names=kept)
        known = {name: each for name, each in texts.items() if name is None or name in kept}
        listed = [text for each in known.values() for text in each]
        reactions = stage.read(listed, _Silent(), cancelled=lambda: False)
        told, sides = self._told(known, listed, np.concatenate([training, held]))
        virtual = PairBatches(
            dataclasses.replace(harvest, sides=sides), self.table, weights[: len(sides)], device="cpu"
        )
        into, by = judged_by(
            told, np.flatnonzero(np.arange(len(sides)) >= len(training)), divide_texts(listed, seed=self.plan.seed)
        )
        fitted = fit_texts(virtual, head, kept, reactions, into, by, self.plan)
        found = {}
        for name, each in judged.items():
            asked = {dimension: each.get(dimension, ()) for dimension in left_out}
            of_text = [text for some in asked.values() for text in some]
            wanted = weights_of(fitted.text_map, stage.read(of_text, _Silent(), cancelled=lambda: False))
            found[name] = self._judge(left_out, asked, of_text, wanted, harvest, head, batches)
        return found

    def _without(self, left_out: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Return which pairs hold no answer of a dimension that is left out, (P,)."""
        gone = {key for key, name in self.chosen.items() if name in left_out}
        return np.array(
            [
                pair.dimension not in left_out
                and (pair.group, pair.chosen) not in gone
                and (pair.group, pair.rejected) not in gone
                for pair in self.pairs
            ]
        )

    def _told(self, known: Texts, listed: Sequence[str], places: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> tuple[
        ToldPairs, "np.ndarray[tuple[int, int], np.dtype[np.int64]]"
    ]:  # fmt: skip
        """Return the pairs at *places* with a text for each instead of its dimension, and the completions of each.

        Some get a text that asks for nothing, and prefer either answer.
        """
        rng = np.random.default_rng(self.plan.seed)
        number = {text: at for at, text in enumerate(listed)}
        sides = self.harvester.plan.sides[places].copy()
        texts, weights = [], []
        for at, place in enumerate(places):
            pair = self.pairs[int(place)]
            neutral = known.get(None, ()) if rng.random() < _NEUTRAL_SHARE else ()
            choice = neutral or known[pair.dimension]
            texts.append(number[choice[rng.integers(len(choice))]])
            weights.append(1.0 if neutral else pair.weight)
            if neutral and rng.random() < 0.5:
                sides[at] = sides[at][::-1]
        told = ToldPairs(
            pairs=np.arange(len(places)), texts=np.array(texts), weights=np.array(weights, dtype=np.float32)
        )
        return told, sides

    def _judge(
        self,
        left_out: tuple[str, str],
        asked: Mapping[str, Sequence[str]],
        listed: Sequence[str],
        weights: FloatArray,
        harvest: PairHarvest,
        head: FittedHead,
        batches: PairBatches,
    ) -> Judged:
        """Return whether each left-out answer beats the other under texts that ask for it, in both directions."""
        rng = np.random.default_rng(self.plan.seed)
        sides, texts, groups = [], [], []
        for case in self.cases():
            if not set(left_out) <= set(case.answers):
                continue
            for wanted, other in (left_out, left_out[::-1]):
                for text in rng.choice(asked[wanted], size=min(DRAWS, len(asked[wanted])), replace=False):
                    sides.append((case.answers[wanted], case.answers[other]))
                    texts.append(listed.index(str(text)))
                    groups.append(case.group)
        told = ToldPairs(
            pairs=np.arange(len(sides)), texts=np.array(texts), weights=np.ones(len(sides), dtype=np.float32)
        )
        these = PairBatches(
            dataclasses.replace(harvest, sides=np.array(sides)), self.table,
            np.zeros((len(sides), batches.dimensions), dtype=np.float32), device="cpu",
        )  # fmt: skip
        found = judge_texts(head, these, weights, told, clamp=np.inf)
        return Judged(right=(found.likelihoods > 0).tolist(), groups=groups)


class _Silent:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    @contextlib.contextmanager
    def counting(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Do nothing."""
        yield lambda done: None


def folds_of(names: Sequence[str], count: int, *, seed: int) -> list[tuple[str, str]]:
    """Return *count* pairs of *names* to leave out; every name is in one before any is in a second."""
    rng = np.random.default_rng(seed)
    found: list[tuple[str, str]] = []
    while len(found) < count:
        order = [str(name) for name in rng.permutation(np.array(names))]
        found += [each for each in zip(order[::2], order[1::2], strict=False) if {*each} not in map(set, found)]
    return found[:count]


def run(
    base_path: Path,
    pairs_path: Path,
    sources: Sequence[Path],
    work: Path,
    plan: PairTraining,
    *,
    folds: int,
    threads: int,
) -> Iterator[tuple[tuple[str, str], dict[str, Judged]]]:
    """Yield each fold's left-out dimensions with its figures by source of text."""
    pairs = read_pairs(pairs_path)
    by_source = {path.stem: read_texts(path) for path in sources}
    engine = EngineOptions(threads=threads, sequences=2, hidden_states=True)
    with stoppable(GOES_ON) as cancelled, LlamaModel.open(base_path, engine) as base:
        torch.set_num_threads(base.threads)
        leaving = LeavingOut(pairs, pairs_path, base, base_path, work, plan)
        _require_texts(pairs_path, leaving.names, by_source)
        _require_short_texts(base, by_source)
        leaving.harvester.prepare()
        progress = Progress()
        with progress.counting("harvest", len(leaving.harvester.plan.completions)) as show:
            harvest = leaving.harvester.run(base, progress=show, cancelled=cancelled)
        plain = plain_states(base, base.tokenizer, spread(leaving.prompts, _PROMPTS), cancelled=cancelled)
        every = merged(list(by_source.values()))
        for left_out in folds_of(leaving.names, folds, seed=plan.seed):
            yield left_out, leaving.fold(left_out, harvest, plain, every, by_source)


def _require_texts(path: Path, names: Sequence[str], by_source: Mapping[str, Texts]) -> None:
    if len(names) < 4:
        raise PairsError(path, ["two dimensions left out must leave two"], remedy="use pairs of at least 4 dimensions")
    for source, texts in by_source.items():
        if lacking := [name for name in names if not texts.get(name)]:
            raise UsageError(
                f"{source} has no text for {', '.join(map(repr, lacking))}", remedy="add texts for these dimensions"
            )


def _require_short_texts(base: LlamaModel, by_source: Mapping[str, Texts]) -> None:
    template = chat_template(base)
    texts, place = Completions(template, base.tokenizer), SentencePlace(template)
    for source, known in by_source.items():
        longest = max(read_length(text, texts, place) for each in known.values() for text in each)
        if longest > base.context_length:
            raise UsageError(
                f"{source} has a text of {longest:,} tokens, more than the context of {base.context_length:,}",
                remedy="shorten it",
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Leave out what the command line asks for, print the figures, and write them as JSON."""
    parser = argparse.ArgumentParser(description="Judge preferences in words that no stage of the training saw.")
    parser.add_argument("--model", required=True, help="a GGUF file or a bundle's name")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True, action="append", help="may be repeated")
    parser.add_argument("--work", type=Path, required=True, help="folder of the harvest, which is kept")
    parser.add_argument("--folds", type=int, default=4, help="how often two dimensions are left out")
    parser.add_argument("--seed", type=int, default=PairTraining().seed)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    options = parser.parse_args(arguments)
    together: dict[str, Judged] = {}
    rows = []
    with told_plainly():
        plan = PairTraining(seed=options.seed)
        found = run(
            base_of(options.model), options.pairs, options.texts, options.work, plan,
            folds=options.folds, threads=options.threads,
        )  # fmt: skip
        for left_out, figures in found:
            for source, judged in figures.items():
                rows.append(_row(" and ".join(left_out), source, judged))
                print(_line(rows[-1]), flush=True)
                whole = together.setdefault(source, Judged(right=[], groups=[]))
                whole.right.extend(judged.right)
                whole.groups.extend(judged.groups)
    rows += [_row("all", source, judged) for source, judged in together.items()]
    for row in rows[-len(together) :]:
        print(_line(row))
    if options.out:
        options.out.write_text(json_text(rows) + "\n", encoding="utf-8")


def _row(left_out: str, source: str, judged: Judged) -> dict[str, str | float | None]:
    accuracy, error = judged.figures()
    return {
        "left_out": left_out, "texts": source, "policy_accuracy": accuracy, "error": error, "pairs": len(judged.right),
        "groups": len(set(judged.groups)), "errors_above_chance": (accuracy - 0.5) / error if error else None,
    }  # fmt: skip


def _line(row: Mapping[str, str | float | None]) -> str:
    error, above = (
        "–" if row[name] is None else f"{row[name]:{form}}"
        for name, form in (("error", ".3f"), ("errors_above_chance", "+5.1f"))
    )
    return (
        f"{row['left_out']:28} {row['texts']:14} {row['policy_accuracy']:.3f} ± {error}  "
        f"{above} standard errors, {row['pairs']} pairs of {row['groups']} groups"
    )


if __name__ == "__main__":
    main()
