"""`padlite export reward` for a head directory made by `padlite train head`: its arrays become a reward head, proved.

    DIR/head.json, head.npz  →  reward.onnx                      features φ_i(s, a) = u_aᵀ A_i h, once in PyTorch,
                                                                 once in ONNX Runtime as a chat would run it

Shapes: V vocabulary, d width, r rank, m dimensions, k candidates. Knows nothing of language models in ONNX.
"""

import dataclasses
import json
import statistics
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_head import Probe
from padlite.backends.onnx_head_arrays import HeadArrays
from padlite.errors import BackendError, NotFoundError
from padlite.opening import require_same_base
from padlite.options import EngineOptions
from padlite.scoring import top_k
from padlite.seams import Dimension, FloatArray, Step, TokenArray
from padlite.text_map import TextMap
from padlite_export.parity import CANDIDATES, TEXT, Comparing, Comparison, Parity
from padlite_export.placing import placing

LAYOUT = 1
TOLERANCE = (1e-3, 0.999)
"""Largest error in nats, and the least share of decisions with the same best candidate."""

_RECORD, _ARRAYS = "head.json", "head.npz"
_RANDOM_STATES = 64
_TIMED_STEPS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadReport:
    """What was written and how well it does; *rank* r, *file_bytes* with the data beside it, *step_us* a step here."""

    path: Path
    dimensions: tuple[str, ...]
    vocabulary_size: int
    hidden_size: int
    rank: int
    file_bytes: int
    parity: Parity
    step_us: float

    def as_json(self) -> str:
        """Return it as JSON."""
        return json.dumps({**dataclasses.asdict(self), "path": str(self.path), "kind": "head"}, indent=2)

    def rows(self) -> list[tuple[str, str]]:
        """Return it as a table of labels and values."""
        return [
            ("written", str(self.path)),
            (
                "head",
                f"{', '.join(self.dimensions)}; V = {self.vocabulary_size:,}, d = {self.hidden_size}, r = {self.rank}",
            ),
            ("size", f"{self.file_bytes / 1e6:,.2f} MB"),
            *self.parity.rows(),
            ("a step", f"{self.step_us:.0f} µs"),
        ]


def is_head_directory(folder: Path) -> bool:
    """Tell whether *folder* is one that `padlite train head` made."""
    return (folder / _RECORD).is_file()


def export_head(
    source: Path, out: Path, *, base: Path | None = None, tell: Callable[[str], None] = lambda _line: None
) -> HeadReport:
    """Write the head in the directory *source* to *out*, and return the proof.

    With *base*, the GGUF it was trained for, it must belong to that, and the proof includes the base's own states.
    Raises PadliteError subclasses; nothing is left at *out* then, unless it was there before.
    """
    tell("reading the head")
    arrays = read_head_directory(source)
    with placing(out) as made:
        arrays.save(made)
        tell("comparing it with PyTorch")
        with OnnxHead.open(made, device="cpu") as head:
            states = {"random": _random_states(arrays), "probe": [(arrays.probe.hidden, _some_ids(arrays))]}
            if base is not None:
                states["text"] = _states_of(base, head)
            parity = Parity.of([_compare(arrays, head, name, found) for name, found in states.items()])
            parity.require(*TOLERANCE, remedy="train the head again")
            table = arrays.table
            return HeadReport(
                path=out,
                dimensions=arrays.names,
                vocabulary_size=len(table),
                hidden_size=arrays.maps.shape[1],
                rank=table.shape[1],
                file_bytes=sum(path.stat().st_size for path in made.parent.glob(f"{made.name}*")),
                parity=parity,
                step_us=_step_us(head, states["random"]),
            )


def read_head_directory(folder: Path) -> HeadArrays:
    """Return the head in *folder*. Raises NotFoundError for what isn't there, BackendError for what can't be read."""
    record_path, arrays_path = folder / _RECORD, folder / _ARRAYS
    for path in (record_path, arrays_path):
        if not path.is_file():
            raise NotFoundError(
                f"{folder} has no {path.name}", remedy="copy the whole folder that `padlite train head` made"
            )
    try:
        record = cast(dict[str, object], json.loads(record_path.read_text(encoding="utf-8")))
        layout = record["layout"]
        if layout != LAYOUT:
            raise BackendError(
                f"{record_path} has layout {layout!r}, this padlite reads {LAYOUT}", remedy="upgrade padlite"
            )
        listed = cast(Sequence[dict[str, object]], record["dimensions"])
        with arrays_path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return HeadArrays(
                table=arrays["table"],
                maps=arrays["maps"],
                dimensions=tuple(
                    Dimension(
                        name=str(each["name"]),
                        description=str(each.get("description", "")),
                        scale=float(cast(float, each.get("scale", 1.0))),
                    )
                    for each in listed
                ),
                tokenizer_sha256=str(record["tokenizer_sha256"]),
                probe=Probe(text=str(record["probe_text"]), hidden=arrays["probe"]),
                text_map=TextMap(names=tuple(str(each["name"]) for each in listed), matrix=arrays["text_map"])
                if "text_map" in arrays.files
                else None,
                provenance={
                    **{str(key): str(value) for key, value in cast(dict[str, str], record["provenance"]).items()},
                    "base_sha256": str(record["base_sha256"]),
                },
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, EOFError) as error:
        missing = f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0][:200]
        raise BackendError(f"the head in {folder} can't be read: {missing}", remedy="train it again") from error


def reference_features(arrays: HeadArrays, hidden: FloatArray, candidates: TokenArray) -> FloatArray:
    """Return φ (k, m) of *candidates* after *hidden* (d,), each map applied to the state first, in double precision."""
    maps = torch.from_numpy(arrays.maps).double()
    rows = torch.from_numpy(arrays.table[candidates]).double()
    features = rows @ torch.einsum("mdr,d->mr", maps, torch.from_numpy(np.array(hidden)).double()).T
    return np.asarray(features.numpy(), dtype=np.float32)


_State = tuple[FloatArray, TokenArray]


def _random_states(arrays: HeadArrays) -> list[_State]:
    """Return random hidden states of unit variance, with random candidates."""
    rng = np.random.default_rng(0)
    width = arrays.maps.shape[1]
    found = []
    for _ in range(_RANDOM_STATES):
        hidden = rng.standard_normal((width,)).astype(np.float32)
        ids = rng.permutation(len(arrays.table))[:CANDIDATES].astype(np.int64)
        found.append((hidden, ids))
    return found


def _some_ids(arrays: HeadArrays) -> TokenArray:
    return np.arange(min(CANDIDATES, len(arrays.table)), dtype=np.int64)


def _states_of(base: Path, head: OnnxHead) -> list[_State]:
    """Return the states of the model *base* on a text with its own candidates; RewardMismatchError if it isn't its."""
    with LlamaModel.open(base, EngineOptions(context_length=256, gpu_layers=0, sequences=2)) as model:
        require_same_base(head, model)
        tokens = model.tokenizer.encode(TEXT, special=False)
        return [
            (state.hidden.copy(), top_k(state.logits, CANDIDATES).copy()) for state in model.states(tokens, first=1)
        ]


def _compare(arrays: HeadArrays, head: OnnxHead, name: str, states: Sequence[_State]) -> Comparison:
    comparing = Comparing(name)
    weights = np.ones(len(arrays.names), dtype=np.float32)
    for hidden, candidates in states:
        wanted = reference_features(arrays, hidden, candidates)
        found = head.features(_step(hidden, candidates, weights))
        for mine, theirs in zip(found.T, wanted.T, strict=True):
            comparing.add(mine, theirs)
    return comparing.result()


def _step(hidden: FloatArray, candidates: TokenArray, weights: FloatArray) -> Step:
    nothing = np.zeros(len(candidates), dtype=np.float32)
    return Step(context=(), candidates=candidates, base_logits=nothing, hidden=hidden, weights=weights)


def _step_us(head: OnnxHead, states: Sequence[_State]) -> float:
    """Return the median microseconds of a step with 20 candidates."""
    weights = np.ones(len(head.dimensions), dtype=np.float32)
    spent = []
    for at in range(_TIMED_STEPS):
        step = _step(*states[at % len(states)], weights)
        began = time.perf_counter()
        head.features(step)
        spent.append(time.perf_counter() - began)
    return 1e6 * statistics.median(spent)
