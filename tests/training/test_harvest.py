"""The harvest's own processes, and its file."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from padlite_training.base_gguf import open_base
from padlite_training.harvest import Harvest, harvest
from padlite_training.recipe import HeadTraining
from padlite_training.split import Scenario
from padlite_training.styles import STYLES

HARVESTING = """
import multiprocessing, time
from concurrent.futures import ProcessPoolExecutor
from padlite_training.harvest import end_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        pool.submit(print, "working", flush=True).result()
        pool.submit(time.sleep, 600).result()
"""


def test_a_process_that_harvests_ends_when_the_build_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", HARVESTING], stdout=subprocess.PIPE, text=True) as build:
        assert build.stdout is not None
        assert build.stdout.readline() == "working\n"
        build.kill()
        build.communicate(timeout=60)  # the pipe stays open as long as the child that shares it


def test_every_state_is_marked_with_what_it_is_for(random_base: Path) -> None:
    answers = dict.fromkeys(STYLES, "fine")
    scenarios = [
        Scenario(name=f"own-{n}", questions=(f"what is {n}", f"tell me about {n}"), answers=answers) for n in range(10)
    ]
    plan = HeadTraining(answers=24, candidates=6, answer_tokens=3, validation_share=0.3)
    with open_base(random_base, sequences=len(STYLES) + 2, context_length=2048) as base:
        found = harvest(base, scenarios, [], plan)
        again = harvest(base, scenarios, [], plan)
        other = harvest(base, scenarios, [], plan, share=1)
    assert found.hidden.shape == (24 * 3, base.hidden_size)  # the random base ends no answer by itself
    assert found.features.shape == (24 * 3, 6, len(STYLES))
    assert np.abs(found.features).max() > 0.01
    held = set(found.group[found.validation])
    assert 1 <= len(held) <= 3
    assert not held & set(found.group[~found.validation])
    assert not set(other.group[other.validation]) & set(found.group[~found.validation])  # of every share the same
    assert 0 < found.plain.mean() < 0.5
    assert np.array_equal(found.group, again.group)
    assert not np.array_equal(found.group, other.group)


def test_a_harvest_that_is_cut_off_while_it_is_written_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is there means that the stage is done."""
    harvest = Harvest(**{field.name: np.zeros((2, 2)) for field in fields(Harvest)})  # type: ignore[arg-type]
    path, write = tmp_path / "harvest.npz", np.savez

    def cut_off(file: object, **arrays: object) -> None:
        write(file, hidden=arrays["hidden"])  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", cut_off)
    with pytest.raises(KeyboardInterrupt):
        harvest.save(path)
    assert not path.exists()
    monkeypatch.undo()
    harvest.save(path)
    assert np.array_equal(Harvest.load(path).hidden, harvest.hidden)
