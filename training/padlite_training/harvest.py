"""Collects the states from which the reward head learns: answers to training questions, guided by the contrast teacher.

The head is trained on what the quantized model really computes: hidden states come from llama.cpp, without any style
sentence in the context. Shapes: N states, k candidates, m styles, d width.
"""

import logging
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from padlite.backends.llama import LlamaModel
from padlite.dimensions.harvest import answer, guided_by
from padlite.dimensions.teacher import ContrastTeacher, TaughtState
from padlite.opening import chat_template
from padlite.seams import FloatArray
from padlite.template import Message
from padlite_training.base_gguf import open_base
from padlite_training.corpus import Dialogue
from padlite_training.recipe import HeadTraining
from padlite_training.split import Scenario, drawing_chances
from padlite_training.styles import SENTENCES, STYLES

logger = logging.getLogger(__name__)

PUBLIC_SHARE = 0.4
"""How much of the small talk that is asked is public: more than in training, since the base knows it best."""

ORDINARY_SHARE = 0.15
HISTORY_SHARE = 0.3
PLAIN_SHARE = 0.2
PROMPT_ROOM = 512  # tokens for each sentence's sequence
STRENGTHS = (0.7, 1.0, 1.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """The states: *hidden* (N, d), *candidates* (N, k), *base* log-probabilities (N, k), *features* (N, k, m).

    *group* (N,) is the scenario's number (−1 for ordinary chat), *validation* (N,) marks scenarios that only decide
    when to stop, *plain* (N,) states of unguided greedy answers.
    """

    hidden: npt.NDArray[np.float32]
    candidates: npt.NDArray[np.int32]
    base: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    group: npt.NDArray[np.int32]
    validation: npt.NDArray[np.bool_]
    plain: npt.NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write everything to the .npz file *path*, under another name until it is complete."""
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Harvest":
        """Return what `save` wrote."""
        with np.load(path) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One answer to harvest: what was said, how it is guided (*push* (m,), zeros for plain), its *temperature*."""

    messages: tuple[Message, ...]
    push: FloatArray
    temperature: float
    group: int


def harvest(
    base: LlamaModel, scenarios: Sequence[Scenario], ordinary: Sequence[Dialogue], plan: HeadTraining, *, share: int = 0
) -> Harvest:
    """Return the states of *plan.answers* answers to questions of *scenarios* and openings of *ordinary* chats.

    Another *share* draws other answers; which scenarios are for validation depends on the plan's seed alone.
    """
    count = math.ceil(plan.validation_share * len(scenarios))
    held = set(np.random.default_rng(plan.seed).choice(len(scenarios), count, replace=False).tolist())
    rng = np.random.default_rng((plan.seed, share))
    sentences = [SENTENCES[style][0] for style in STYLES]
    teacher = ContrastTeacher(base, base.tokenizer, chat_template(base), sentences, candidates=plan.candidates)
    states: list[TaughtState] = []
    marks: list[tuple[int, bool, bool]] = []
    chances = drawing_chances(scenarios, power=0.0, public_share=PUBLIC_SHARE)
    began = time.monotonic()
    for number in range(plan.answers):
        errand = _errand(rng, scenarios, ordinary, chances)
        said = answer(
            teacher, errand.messages, guided_by(errand.push), limit=plan.answer_tokens,
            temperature=errand.temperature, rng=rng,
        )  # fmt: skip
        found = [state for state, _ in said]
        states += found
        marks += [(errand.group, errand.group in held, not errand.push.any())] * len(found)
        if number % 250 == 249:
            logger.info(
                "share %d: %d answers, %d states, %.0f s", share, number + 1, len(states), time.monotonic() - began
            )
    group, validation, plain = (np.array(column) for column in zip(*marks, strict=True))
    return Harvest(
        hidden=np.stack([state.hidden for state in states]),
        candidates=np.stack([state.candidates for state in states]).astype(np.int32),
        base=np.stack([state.base for state in states]),
        features=np.stack([state.features for state in states]),
        group=group.astype(np.int32),
        validation=validation,
        plain=plain,
    )


def harvest_in_parallel(
    gguf: Path, scenarios: Sequence[Scenario], ordinary: Sequence[Dialogue], plan: HeadTraining, *, processes: int
) -> Harvest:
    """Return the same as `harvest` with the answers shared among *processes*, each with its own copy of the model."""
    part = replace(plan, answers=-(-plan.answers // processes))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=end_with_parent) as pool:
        jobs = [pool.submit(_harvest_share, gguf, scenarios, ordinary, part, share) for share in range(processes)]
        parts = [job.result() for job in jobs]
    return Harvest(**{f.name: np.concatenate([getattr(each, f.name) for each in parts]) for f in fields(Harvest)})


def end_with_parent() -> None:
    """Let this process end when the one that started it is killed; it would work on for nobody."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _harvest_share(
    gguf: Path, scenarios: Sequence[Scenario], ordinary: Sequence[Dialogue], plan: HeadTraining, share: int
) -> Harvest:
    with open_base(gguf, sequences=len(STYLES) + 2, context_length=len(STYLES) * PROMPT_ROOM) as base:
        return harvest(base, scenarios, ordinary, plan, share=share)


def _errand(
    rng: np.random.Generator,
    scenarios: Sequence[Scenario],
    ordinary: Sequence[Dialogue],
    chances: npt.NDArray[np.float64],
) -> Errand:
    push = np.zeros(len(STYLES), dtype=np.float32)
    style = int(rng.integers(len(STYLES)))
    temperature = 0.0
    if rng.random() >= PLAIN_SHARE:
        push[style] = STRENGTHS[rng.integers(len(STRENGTHS))]
        if rng.random() < 0.3:
            push[rng.integers(len(STYLES))] += 0.7
        temperature = 0.7 if rng.random() < 0.5 else 0.0
    history: list[Message] = []
    if rng.random() < HISTORY_SHARE:
        for _ in range(rng.integers(1, 3)):
            scenario = scenarios[int(rng.integers(len(scenarios)))]
            voice = STYLES[style if rng.random() < 0.6 else rng.integers(len(STYLES))]
            history += [_question(rng, scenario), Message(role="assistant", content=scenario.answers[voice])]
    if ordinary and rng.random() < ORDINARY_SHARE:
        opening = ordinary[int(rng.integers(len(ordinary)))].turns[0]
        messages, group = (*history, Message(role="user", content=opening)), -1
    else:
        group = int(rng.choice(len(scenarios), p=chances))
        messages = (*history, _question(rng, scenarios[group]))
    return Errand(messages=messages, push=push, temperature=temperature, group=group)


def _question(rng: np.random.Generator, scenario: Scenario) -> Message:
    question = scenario.questions[rng.integers(len(scenario.questions))]
    return Message(role="user", content=question.lower() if rng.random() < 0.25 else question)
