"""What `padlite eval` says of the bundle: its head beside simpler ways to the same, on held-out small talk.

The pairs come from the split that nothing was trained on; the classifier learns from what was. Greedy answers.
"""

from collections.abc import Sequence
from pathlib import Path

from padlite.profile import Profile
from padlite.whole_files import write_whole
from padlite_training.corpus import load_small_talk
from padlite_training.judging.order import EvaluationOrder, run
from padlite_training.pairs.telling import Teller
from padlite_training.places import Places
from padlite_training.recipe import Comparison
from padlite_training.records import json_text
from padlite_training.split import Scenario
from padlite_training.style_pairs import write_pairs
from padlite_training.styles import PUBLIC_STYLES, STYLES

JUDGED = ("wordings", "scenarios")
_ROUNDS, _SEED = 3, 1  # as `padlite_training.style_pairs` has them


def compare(places: Places, plan: Comparison, teller: Teller) -> None:
    """Judge the bundle and its rivals on each set of `JUDGED` that isn't judged yet; one JSON file each."""
    split = load_small_talk(places.corpus)
    folder = places.work / "pairs"
    folder.mkdir(exist_ok=True)
    reference = _pairs(folder / "train.jsonl", split.training, STYLES)
    for name, scenarios in zip(JUDGED, (split.wordings, split.scenarios), strict=True):
        if places.rivals(name).is_file():
            continue
        order = EvaluationOrder(
            profile=Profile(base=places.gguf.absolute(), reward=places.reward.absolute()),
            pairs=_pairs(folder / f"{name}.jsonl", scenarios, PUBLIC_STYLES), reference=reference,
            strengths=plan.strengths, best_of=plan.best_of, prompts=plan.prompts, pairs_each=plan.pairs_each,
        )  # fmt: skip
        record = run(order, teller).as_record()
        write_whole(places.rivals(name), json_text(record).encode())


def _pairs(path: Path, scenarios: Sequence[Scenario], styles: Sequence[str]) -> Path:
    write_pairs(path, scenarios, styles=styles, rounds=_ROUNDS, in_words=False, seed=_SEED)
    return path
