"""`padlite train head`: from a GGUF and a file of pairs to a calibrated reward head, with a report.

    DIR/reward.onnx      the head, for padlite
    DIR/head.json, .npz  the same head with its training's arrays, for `padlite export` (docs/formats.md)
    DIR/report.json      what was measured
    DIR/harvest/         the states; may be deleted afterwards, or kept to train again at once

Cheap checks come first: files, groups, device, template, disk. Says what happens through `Teller`.
"""

import dataclasses
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_head_arrays import load_arrays
from padlite.contrast import SentencePlace
from padlite.errors import UsageError
from padlite.opening import chat_template, require_same_base
from padlite.options import EngineOptions
from padlite.seams import Dimension, FloatArray
from padlite.text_map import TextMap
from padlite.whole_files import write_whole
from padlite_training.completions import Completions
from padlite_training.head_file import PROBE_TEXT, balanced, output_table, write_reward
from padlite_training.means import Values, mean_and_error
from padlite_training.pairs.calibration import calibrated, plain_states
from padlite_training.pairs.fit import (
    NO_REWARD_LOSS,
    FittedHead,
    IndexArray,
    PairBatches,
    fit_pairs,
    judge_pairs,
    one_hot,
)  # fmt: skip
from padlite_training.pairs.harvest import CANDIDATES, Harvester, file_sha256, plan_harvest, require_room
from padlite_training.pairs.reading import Pair, PairsError, read_pairs, require_known_dimensions
from padlite_training.pairs.recipe import PairTraining
from padlite_training.pairs.split import HELD_OUT_SHARE, SPLIT_SEED, PairSplit, provenance_of, split_by_group
from padlite_training.pairs.telling import Teller
from padlite_training.pairs.text_stage import head_features
from padlite_training.pairs.text_training import TextFigures, TextStage, divide_told, read_length
from padlite_training.precision import require_device
from padlite_training.records import json_text

LAYOUT = 1
CALIBRATION_PROMPTS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOrder:
    """What to train: a head for the GGUF *base* from the file *pairs*, into the folder *out*.

    With *onto*, a head of that base, the head keeps its dimensions, and only its map from text to weights is trained;
    head.json and head.npz are not written then, because a head's file doesn't hold all that is in them.
    *candidates* K are kept of each state. *threads* 0 = one per physical core. *held_out* share of the groups only
    decides when to stop, and how good the result is.
    """

    base: Path
    pairs: Path
    out: Path
    plan: PairTraining
    candidates: int = CANDIDATES
    context_length: int = 0
    threads: int = 0
    device: str = "auto"
    held_out: float = HELD_OUT_SHARE
    split_seed: int = SPLIT_SEED
    force: bool = False
    onto: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DimensionFigures:
    """How a head does on the held-out pairs of one dimension: *pairs*, and the shares it gets right.

    *pair_accuracy* by its reward, *policy_accuracy* by the guided model's own likelihood at strength 1; *base_accuracy*
    is the likelihood of the base model alone. The errors are standard errors over groups, none for a single group.
    """

    pairs: int
    pair_accuracy: float
    policy_accuracy: float
    base_accuracy: float
    pair_error: float | None = None
    policy_error: float | None = None

    @property
    def is_above_chance(self) -> bool:
        """Whether the held-out pairs show that something was learned, by two standard errors; one group shows none."""
        return self.pair_error is not None and self.pair_accuracy - 2.0 * self.pair_error > 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a training measured; times in seconds, losses in nats, memory in MiB (the process's peak)."""

    pairs: int
    held_out_pairs: int
    held_out_groups: int
    states: int
    harvest_mib: float
    harvest_s: float
    fit_s: float
    peak_memory_mib: float
    epochs: int
    loss: float
    loss_without: float
    scales: Mapping[str, float]
    dimensions: Mapping[str, DimensionFigures]
    mean: DimensionFigures
    text: TextFigures | None = None


def train_head(order: TrainingOrder, teller: Teller, *, cancelled: Callable[[], bool] = lambda: False) -> Report:
    """Train the head that *order* describes and write its files; DecodingCancelled soon after *cancelled* turns true.

    What was harvested until then is kept, and the same order goes on from it.
    """
    device = require_device(order.device)
    target = order.out / "reward.onnx"
    if target.exists() and not order.force:
        raise UsageError(f"{target} exists already", remedy="choose another --out, or add --force to replace it")
    pairs = read_pairs(order.pairs)
    kept = load_arrays(order.onto) if order.onto else None
    if kept is not None:
        require_known_dimensions(order.pairs, pairs, kept.names)
    split = split_by_group(order.pairs, pairs, share=order.held_out, seed=order.split_seed)
    names = dimensions_of(order.pairs, split) if kept is None else list(kept.names)
    if kept is not None:
        _require_texts(order.pairs, pairs, split, seed=order.split_seed)
    make_folder(order.out)
    engine = EngineOptions(
        context_length=order.context_length, threads=order.threads, sequences=2, hidden_states=True
    )  # fmt: skip
    with LlamaModel.open(order.base, engine) as base:
        torch.set_num_threads(base.threads)
        if order.onto:
            with OnnxHead.open(order.onto, device="cpu") as opened:
                require_same_base(opened, base)
        texts = Completions(chat_template(base), base.tokenizer)
        plan = plan_harvest(order.pairs, pairs, texts, candidates=order.candidates, room=base.context_length)
        _require_short_texts(order, pairs, base, texts)
        harvester = Harvester(
            order.out / "harvest", plan, hidden_size=base.hidden_size, base_sha256=file_sha256(order.base)
        )  # fmt: skip
        size = plan.size_bytes(base.hidden_size)
        resumed = f", {harvester.done:,} of them done before" if harvester.resumable else ""
        teller.say(
            f"{len(pairs):,} pairs, {len(plan.completions):,} answers{resumed}; "
            f"the harvest takes {size / 2**20:,.0f} MiB in {harvester.folder}"
        )
        harvester.prepare()
        began = time.monotonic()
        with teller.counting("harvest", len(plan.completions)) as show:
            harvest = harvester.run(base, progress=show, cancelled=cancelled)
        harvest_s = time.monotonic() - began
        began = time.monotonic()
        weights = one_hot(names, [pair.dimension for pair in pairs], [pair.weight for pair in pairs])
        if kept is None:
            table = output_table(order.base)
            batches = PairBatches(harvest, table, weights, device=device)
            head = _first_stage(order, batches, pairs, split, names, base, table, teller, cancelled)
            rows, maps = balanced(head, table)
        else:  # u_a stands for e_a, and P is the identity: the dimensions are as they are
            table, rows, maps = kept.table.astype(np.float32), kept.table, kept.maps
            batches = PairBatches(harvest, table, weights, device=device)
            head = FittedHead(
                projection=np.eye(table.shape[1], dtype=np.float32),
                maps=maps,
                scales=np.array([each.scale for each in kept.dimensions], dtype=np.float32),
            )
        held = numbers_of(pairs, split.held_out)
        base.forget(0)  # it shares one context with what reads texts and the probe
        stage = TextStage(base=base, batches=batches, head=head, features=head_features(rows, maps), names=names)
        text_map, text_figures = stage.train(
            pairs, split, order.plan, teller, seed=order.split_seed, cancelled=cancelled
        )  # fmt: skip
        dimensions, mean = figures_of(head, batches, held, [pairs[at] for at in held], names)
        report = Report(
            pairs=len(pairs),
            held_out_pairs=len(held),
            held_out_groups=len(split.held_out_groups),
            states=plan.states,
            harvest_mib=size / 2**20,
            harvest_s=harvest_s,
            fit_s=time.monotonic() - began,
            peak_memory_mib=_peak_memory_mib(),
            epochs=head.epochs,
            loss=head.loss,
            loss_without=NO_REWARD_LOSS,
            scales=dict(zip(names, map(float, head.scales), strict=True)),
            dimensions=dimensions,
            mean=mean,
            text=text_figures,
        )
        if kept is None:
            write_files(order, head, names, report, table=table, base=base, text_map=text_map)
        else:
            write_whole(order.out / "report.json", _json(dataclasses.asdict(report)))
            note = {"text_map": f"{report.pairs} pairs, {text_figures.texts if text_figures else 0} texts"}
            dataclasses.replace(kept, text_map=text_map, provenance={**kept.provenance, **note}).save(target)
            for name in ("head.json", "head.npz"):  # of a head that was there before
                (order.out / name).unlink(missing_ok=True)
    return report


def _first_stage(
    order: TrainingOrder,
    batches: PairBatches,
    pairs: Sequence[Pair],
    split: PairSplit,
    names: Sequence[str],
    base: LlamaModel,
    table: FloatArray,
    teller: Teller,
    cancelled: Callable[[], bool],
) -> FittedHead:
    """Return the head fitted to the pairs that name a dimension, calibrated on the base's own answers."""
    training, held = (numbers_of(pairs, part) for part in (split.training, split.held_out))
    with teller.counting("fit, at most", order.plan.epochs) as show:
        head = fit_pairs(
            batches, training, held, order.plan, progress=lambda epoch, loss: show(epoch), cancelled=cancelled
        )  # fmt: skip
    texts = Completions(chat_template(base), base.tokenizer)
    prompts = sorted({tuple(texts.prompt(pair.messages)) for pair in split.held_out})
    plain = plain_states(base, base.tokenizer, spread(prompts, CALIBRATION_PROMPTS), cancelled=cancelled)
    return calibrated(head, plain, table, names=names, shift=order.plan.mean_shift_nats)


def _require_texts(path: Path, pairs: Sequence[Pair], split: PairSplit, *, seed: int) -> None:
    """Raise PairsError unless enough pairs say in words what is preferred to fit a map to them and to judge it."""
    if not any(pair.preference for pair in pairs):
        raise PairsError(
            path, ["no pair says in words what is preferred, and that is what --onto trains"],
            remedy='give pairs a "preference" instead of a "dimension"',
        )  # fmt: skip
    if not divide_told(pairs, split, seed=seed).suffices:
        raise PairsError(
            path, ["too few pairs say in words what is preferred to train on some groups and judge by others"],
            remedy='give pairs of more groups a "preference", or hold out more of them: --held-out',
        )  # fmt: skip


def _require_short_texts(order: TrainingOrder, pairs: Sequence[Pair], base: LlamaModel, texts: Completions) -> None:
    """Raise PairsError that names each pair whose preference in words is too long to be read."""
    place = SentencePlace(chat_template(base))
    told = {pair.preference for pair in pairs if pair.preference is not None}
    lengths = {text: read_length(text, texts, place) for text in told}
    lines = [(pair.line, lengths[pair.preference]) for pair in pairs if pair.preference is not None]
    require_room(order.pairs, lines, base.context_length, remedy="shorten these preferences")


def dimensions_of(path: Path, split: PairSplit) -> list[str]:
    """Return the dimensions that the training pairs name, in alphabetical order; PairsError if none does."""
    names = sorted({pair.dimension for pair in split.training if pair.dimension is not None})
    if not names:
        raise PairsError(
            path,
            ["no pair names a dimension, so there is nothing to learn"],
            remedy='give pairs a "dimension", or name a head whose dimensions there are already: --onto HEAD.onnx',
        )
    return names


def make_folder(folder: Path) -> None:
    """Make *folder*, or raise UsageError with the reason why it can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} can't be made: {error.strerror}", remedy="choose another --out") from error


def numbers_of(pairs: Sequence[Pair], part: Sequence[Pair]) -> IndexArray:
    """Return the places in *pairs* of those in *part* that name a dimension."""
    lines = {pair.line for pair in part if pair.dimension is not None}
    return np.array([at for at, pair in enumerate(pairs) if pair.line in lines], dtype=np.int64)


def figures_of(
    head: FittedHead, batches: PairBatches, held: IndexArray, pairs: Sequence[Pair], names: Sequence[str]
) -> tuple[dict[str, DimensionFigures], DimensionFigures]:
    """Return the figures on the *pairs*, whose numbers are *held*, by dimension, and their mean over dimensions.

    Dimensions without any pair are left out; the mean of none is no number.
    """
    if not len(held):
        return {}, _figures([])
    silent = dataclasses.replace(head, maps=np.zeros_like(head.maps))
    guided, plain = (judge_pairs(each, batches, held, clamp=np.inf) for each in (head, silent))
    right = (guided.rewards > 0, guided.likelihoods > 0, plain.likelihoods > 0)
    found = {}
    for name in names:
        places = [at for at, pair in enumerate(pairs) if pair.dimension == name]
        groups = [pairs[at].group for at in places]
        if places:
            found[name] = _Right(*(Values.of_shares(each[places], groups) for each in right))
    return {name: _figures([each]) for name, each in found.items()}, _figures(list(found.values()))


class _Right(NamedTuple):
    """1 for each held-out pair of a dimension that is right by the reward, by the guided model, by the base alone."""

    reward: Values
    policy: Values
    base: Values


def _figures(dimensions: Sequence[_Right]) -> DimensionFigures:
    """Return the mean over *dimensions*."""
    pair_accuracy, pair_error = mean_and_error([each.reward for each in dimensions])
    policy_accuracy, policy_error = mean_and_error([each.policy for each in dimensions])
    base_accuracy, _ = mean_and_error([each.base for each in dimensions])
    return DimensionFigures(
        pairs=sum(len(each.reward.values) for each in dimensions),
        pair_accuracy=_number(pair_accuracy), pair_error=pair_error,
        policy_accuracy=_number(policy_accuracy), policy_error=policy_error,
        base_accuracy=_number(base_accuracy),
    )  # fmt: skip


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def write_files(
    order: TrainingOrder,
    head: FittedHead,
    names: Sequence[str],
    report: Report,
    *,
    table: FloatArray,
    base: LlamaModel,
    text_map: TextMap | None = None,
) -> None:
    """Write the head for padlite and for export, and the report, each whole or not at all."""
    dimensions = [Dimension(name=name, scale=float(scale)) for name, scale in zip(names, head.scales, strict=True)]
    provenance = {
        "method": "PAD, preference pairs",
        "pairs": str(report.pairs),
        **provenance_of(share=order.held_out, seed=order.split_seed),
        "pair_accuracy": f"{report.mean.pair_accuracy:.3f}",
        "policy_accuracy": f"{report.mean.policy_accuracy:.3f}",
        "base": order.base.name,
        **{name: f"{value:g}" for name, value in dataclasses.asdict(order.plan).items()},
    }
    rows, maps = balanced(head, table)
    record = {
        "layout": LAYOUT,
        "kind": "head",
        "dimensions": [dataclasses.asdict(each) for each in dimensions],
        "tokenizer_sha256": base.tokenizer.sha256,
        "base_sha256": file_sha256(order.base),
        "probe_text": PROBE_TEXT,
        "provenance": provenance,
    }
    with (order.out / "head.npz.partial").open("wb") as file:
        arrays: dict[str, npt.NDArray[np.float16] | FloatArray] = {
            "table": rows, "maps": maps, "projection": head.projection, "probe": base.unit_hidden_state(PROBE_TEXT)
        }  # fmt: skip
        if text_map is not None:
            arrays["text_map"] = text_map.matrix
        np.savez(file, allow_pickle=False, **arrays)
    (order.out / "head.npz.partial").replace(order.out / "head.npz")
    write_whole(order.out / "head.json", _json(record))
    write_whole(order.out / "report.json", _json(dataclasses.asdict(report)))
    write_reward(
        order.out / "reward.onnx", head, dimensions=dimensions, table=table, base=base, provenance=provenance,
        text_map=text_map,
    )  # fmt: skip


def _json(record: object) -> bytes:
    return (json_text(record) + "\n").encode()


def spread(prompts: Sequence[tuple[int, ...]], count: int) -> list[tuple[int, ...]]:
    """Return up to *count* of *prompts*, evenly from all of them."""
    places = np.unique(np.linspace(0, len(prompts) - 1, min(count, len(prompts))).astype(int))
    return [prompts[at] for at in places]


def _peak_memory_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
