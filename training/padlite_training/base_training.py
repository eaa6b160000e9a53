"""Trains the base model for a fixed time, on the processor or a GPU, with checkpoints that a later call goes on from.

The learning rate follows the share of the time budget that has passed (warm-up, level, linear decay to zero), because
the number of steps that fit into it depends on the machine and on what else it does. Losses are in nats per token.
"""

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from padlite.errors import BackendError
from padlite_training.corpus import Corpus, load_corpus
from padlite_training.facts import Progress
from padlite_training.llama_model import LlamaForTraining, greedy_answer, parameter_count
from padlite_training.losses import Midway, States, separating_mask, token_loss, topic_loss
from padlite_training.muon import Muon
from padlite_training.places import Places
from padlite_training.precision import mixed_precision, require_device
from padlite_training.recipe import BaseTraining, ModelShape, Recipe
from padlite_training.sampler import ChatWriter, Sampler
from padlite_training.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)

SAMPLE_QUESTIONS = ("Hello!", "Do you have a favorite movie?", "I am so tired today.", "What is a dog?")
SAMPLE_SYSTEMS = ("", "Be witty.", "Be caring.")


class BaseTrainer:
    """One phase of a training: the model (random, or that of the checkpoint *start*), its optimizers and the data.

    *device* is as for `require_device`.
    """

    def __init__(
        self, corpus: Corpus, writer: ChatWriter, shape: ModelShape, plan: BaseTraining, *,
        start: Path | None = None, device: str = "auto",
    ) -> None:  # fmt: skip
        torch.manual_seed(plan.seed)
        torch.set_num_threads(plan.threads)
        self.device = torch.device(require_device(device))
        self.plan, self.writer, self.corpus = plan, writer, corpus
        model = load_model(start, shape).train() if start else LlamaForTraining(shape)
        self.model = model.to(self.device)
        matrices = [p for name, p in self.model.named_parameters() if p.ndim == 2 and name != "table.weight"]
        others = [p for name, p in self.model.named_parameters() if p.ndim != 2 or name == "table.weight"]
        self.classifier = torch.nn.Linear(shape.width, len(corpus.small_talk.training)).to(self.device)
        self.muon = Muon(matrices, weight_decay=plan.weight_decay)
        groups = [{"params": others}, {"params": list(self.classifier.parameters())}]
        self.adam = torch.optim.AdamW(groups, lr=plan.table_rate, betas=(0.9, 0.95), weight_decay=0.0)
        self.progress = Progress()
        self.states: States = torch.compile(self.model.states) if plan.compiled else self.model.states
        self.midway: Midway = torch.compile(self.model.midway) if plan.compiled else self.model.midway
        self.right = torch.zeros((), device=self.device)

    def run(self, checkpoint: Path, *, stop_after: float = math.inf) -> bool:
        """Train until the budget is spent, or *stop_after* seconds; goes on from *checkpoint* if it is there.

        Return whether the budget is spent. Raises BackendError when the loss isn't finite any more.
        """
        if checkpoint.is_file():
            self._load(checkpoint)
        plan = self.plan
        sampler = Sampler(
            self.corpus, self.writer, seed=plan.seed + self.progress.steps,
            small_talk=plan.small_talk, plain_sentence=plan.plain_sentence,
        )  # fmt: skip
        logger.info("%d weights, budget %.0f s, %s", parameter_count(self.model), plan.budget_s, self.device.type)
        watch, began = _Stopwatch(), time.monotonic()
        pending: Tensor | None = None
        smooth, saved, shown = math.nan, self.progress.elapsed_s, self.progress.elapsed_s
        while self.progress.elapsed_s < plan.budget_s and time.monotonic() - began < stop_after:
            # A GPU works on the step before while the next rows are drawn: its loss is asked for only now.
            loss, pending = pending, self._step(sampler)
            smooth = self._smoothed(smooth, loss, step=self.progress.steps - 1)
            self.progress.elapsed_s += watch.lap()
            if self.progress.elapsed_s - shown > 20:
                shown = self.progress.elapsed_s
                self._show(smooth)
            if self.progress.elapsed_s - saved > plan.checkpoint_every_s:
                saved = self.progress.elapsed_s
                smooth, pending = self._smoothed(smooth, pending, step=self.progress.steps), None
                self._save(checkpoint)
                self.look()
        self._smoothed(smooth, pending, step=self.progress.steps)
        self._save(checkpoint)
        self.look()
        return self.progress.elapsed_s >= plan.budget_s

    def _smoothed(self, smooth: float, loss: Tensor | None, *, step: int) -> float:
        """Return the running mean with one more *loss*, that of *step*, if it is one.

        Raises BackendError when it isn't finite: always before a checkpoint with that step is written.
        """
        if loss is None:
            return smooth
        value = float(loss)
        if not math.isfinite(value):
            raise BackendError(
                f"the loss of step {step} is not a finite number",
                remedy="halve matrix_rate and table_rate in padlite_training/recipe.py, and go on from the checkpoint",
            )
        return value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value

    def rate(self) -> float:
        """Return the present share of the full learning rate, from 0 to 1."""
        passed = self.progress.elapsed_s / self.plan.budget_s
        rising, falling = (passed + 1e-3) / self.plan.warmup_share, (1.0 - passed) / self.plan.decay_share
        return max(0.0, min(1.0, rising, falling))

    def _step(self, sampler: Sampler) -> Tensor | None:
        """Do one step and return its loss; one on questions alone, now and then, has none of text."""
        loss = None
        if (self.progress.steps + 1) % self.plan.questions_every:
            loss = self._learn_text(sampler)
        else:
            self._learn_questions(sampler)
        self._update()
        return loss

    def _learn_text(self, sampler: Sampler) -> Tensor:
        plan = self.plan
        long = self.progress.steps // plan.questions_every % plan.long_row_every == plan.long_row_every - 1
        length = self.model.shape.context_length if long else plan.row_length
        rows = sampler.rows(max(1, plan.batch_tokens // length), length)
        with mixed_precision(self.device.type):
            mask = None if long else separating_mask(rows, self.device)
            last, midway = self.states(torch.from_numpy(rows.tokens).to(self.device), mask)
            loss = token_loss(last, self.model.table.weight, rows)
            topics = topic_loss(midway, self.classifier, rows)
        (loss if topics is None else loss + plan.topic_weight * topics.loss).backward()
        self.progress.tokens += rows.tokens.size
        return loss.detach()

    def _learn_questions(self, sampler: Sampler) -> None:
        """Learn what questions are about: several times as many a second as with their answers."""
        rows = sampler.questions(max(1, self.plan.batch_tokens // self.plan.row_length), self.plan.row_length)
        with mixed_precision(self.device.type):
            mask = separating_mask(rows, self.device)
            midway = self.midway(torch.from_numpy(rows.tokens).to(self.device), mask)
            topics = topic_loss(midway, self.classifier, rows)
        if topics is not None:
            topics.loss.backward()
            self.right = torch.lerp(self.right, topics.right, 0.02)
        self.progress.tokens += rows.tokens.size

    def _update(self) -> None:
        plan = self.plan
        torch.nn.utils.clip_grad_norm_(self.adam.param_groups[0]["params"], 1.0)
        rate = self.rate()
        self.muon.step(plan.matrix_rate * rate)
        for group, full in zip(self.adam.param_groups, (plan.table_rate, plan.topic_rate), strict=True):
            group["lr"] = full * rate
        self.adam.step()
        self.model.zero_grad(set_to_none=True)
        self.classifier.zero_grad(set_to_none=True)
        self.progress.steps += 1

    def _show(self, loss: float) -> None:
        progress, left = self.progress, max(0.0, self.plan.budget_s - self.progress.elapsed_s)
        logger.info(
            "step %d  loss %.3f  topics right %.2f  rate %.2f  %.0f tokens/s  %.2f M tokens  %.0f s left",
            progress.steps, loss, float(self.right), self.rate(), progress.tokens / progress.elapsed_s,
            progress.tokens / 1e6, left,
        )  # fmt: skip

    @torch.no_grad()
    def look(self) -> None:
        """Log the loss on held-out dialogues and a few greedy answers."""
        logger.info("held-out dialogues: %.3f nats per token", held_out_loss(self.model, self.corpus, self.writer))
        for number, question in enumerate(SAMPLE_QUESTIONS):
            system = SAMPLE_SYSTEMS[number % len(SAMPLE_SYSTEMS)]
            prompt = self.writer.chat(self.writer.encode(system), [self.writer.encode(question)], user_weight=0)
            tokens = [*prompt.tokens, self.writer.start, *self.writer.roles["assistant"], *self.writer.newline]
            answer = greedy_answer(self.model, tokens, end=self.writer.end, limit=30)
            text = " ".join(self.writer.tokenizer.decode(answer).split())
            logger.info("  [%s] %s -> %s", system, question, text)

    def _save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "device": self.device.type,
            "model": self.model.state_dict(),
            "classifier": self.classifier.state_dict(),
            "muon": self.muon.state(),
            "adam": self.adam.state_dict(),
            "progress": (self.progress.elapsed_s, self.progress.steps, self.progress.tokens),
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def _load(self, path: Path) -> None:
        """Go on from the checkpoint *path*."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.classifier.load_state_dict(state["classifier"])
        self.muon.load_state(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.progress = Progress(*state["progress"])


def train_phases(places: Places, recipe: Recipe, *, device: str = "auto", stop_after: float = math.inf) -> bool:
    """Train the base model of *recipe* in the work folder, which has the corpus and the tokenizer.

    First on everything, then mostly on small talk. Return whether both phases are finished; false after *stop_after*
    seconds, and another call goes on from there. Raises BackendError where there is no going on.
    """
    start: Path | None = None
    began = time.monotonic()
    for phase, plan in recipe.phases.items():
        checkpoint = places.checkpoint(phase)
        if not is_finished(checkpoint, plan):
            _require_resumable(checkpoint)
            writer = ChatWriter(load_tokenizer(places.tokenizer), user_weight=plan.user_weight)
            trainer = BaseTrainer(
                load_corpus(places.corpus), writer, recipe.model, plan, start=start, device=device
            )  # fmt: skip
            if not trainer.run(checkpoint, stop_after=stop_after - (time.monotonic() - began)):
                return False
        start = checkpoint
    return True


def _require_resumable(checkpoint: Path) -> None:
    """Raise BackendError if *checkpoint* is there and holds no more than weights."""
    if checkpoint.is_file() and "muon" not in _glance(checkpoint):
        raise BackendError(
            f"{checkpoint} holds the weights of a training that was finished, and no training can go on from it",
            remedy="ask for no more time than it was trained for, or build its bundle and --start-from that",
        )


class _Stopwatch:
    """Times the steps; one in which the machine slept, or the process was stopped, counts like the others."""

    LONGEST = 10.0  # times the mean of the steps so far

    def __init__(self) -> None:
        self.last, self.mean = time.monotonic(), math.nan

    def lap(self) -> float:
        """Return the seconds since the last call."""
        now = time.monotonic()
        spent, self.last = now - self.last, now
        if spent > self.LONGEST * self.mean:
            return self.mean
        self.mean = spent if math.isnan(self.mean) else 0.98 * self.mean + 0.02 * spent
        return spent


@torch.no_grad()
def held_out_loss(model: LlamaForTraining, corpus: Corpus, writer: ChatWriter, *, limit: int = 60) -> float:
    """Return the mean loss in nats per token over both sides of held-out self dialogues."""
    total, count, device = 0.0, 0.0, model.table.weight.device
    for dialogue in corpus.held_out_dialogues[:limit]:
        turns = [writer.encode(turn) for turn in dialogue.turns]
        document = writer.chat(writer.encode(dialogue.system), turns, user_weight=1.0)
        tokens = torch.tensor([document.tokens[: model.shape.context_length]], device=device)
        weights = torch.tensor([float(w >= 1.0) for w in document.weights], device=device)[: tokens.shape[1]]
        losses = functional.cross_entropy(model(tokens[:, :-1])[0], tokens[0, 1:], reduction="none")
        total, count = total + float((losses * weights[1:]).sum()), count + float(weights[1:].sum())
    return total / count


def progress_of(checkpoint: Path) -> Progress:
    """Return how far the training of *checkpoint* has come."""
    return Progress(*_glance(checkpoint)["progress"])


def device_of(checkpoint: Path) -> str:
    """Return the type of the device on which *checkpoint* was trained."""
    return str(_glance(checkpoint).get("device", "cpu"))


def _glance(checkpoint: Path) -> dict[str, Any]:
    """Return what *checkpoint* holds, weights being read only when they are used."""
    held: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)
    return held


def is_finished(checkpoint: Path, plan: BaseTraining) -> bool:
    """Tell whether *checkpoint* is there and its budget is spent."""
    return checkpoint.is_file() and progress_of(checkpoint).elapsed_s >= plan.budget_s


def load_model(checkpoint: Path, shape: ModelShape) -> LlamaForTraining:
    """Return the model of *checkpoint*, ready for use."""
    model = LlamaForTraining(shape)
    model.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["model"])
    return model.eval()


def load_mixed(before: Path, after: Path, shape: ModelShape, *, share: float) -> LlamaForTraining:
    """Return the model with the weights of the checkpoint *after* to the *share*, and else those *before*.

    Where a base goes on learning it forgets some of what it knew; a point between, near the end, keeps most of both
    ("Model soups", ICML 2022).
    """
    model, earlier = load_model(after, shape), load_model(before, shape).state_dict()
    mixed = {name: torch.lerp(earlier[name], value, share) for name, value in model.state_dict().items()}
    model.load_state_dict(mixed)
    return model
