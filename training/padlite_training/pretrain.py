"""Trains the base model from a packed corpus, on a machine that has PyTorch and tokenizers, and perhaps no network.

    python -m padlite_training.pretrain small-data.tar.xz --config small --work WORK --out OUT --stop-after 540

Call it again to go on, until it says that both phases are finished. The weights, in bfloat16, then lie in OUT in parts
of at most 15 MB; `parts join` puts them into a work folder, in which `build` goes on with the GGUF.
"""

import argparse
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from padlite_training.base_training import train_phases
from padlite_training.endings import told_plainly
from padlite_training.parts import NAME, PART_BYTES, pack_files, split_file, unpack_files
from padlite_training.places import Places
from padlite_training.recipe import RECIPES, Recipe

logger = logging.getLogger(__name__)


def pretrain(
    packed: Path, places: Places, recipe: Recipe, *,
    device: str = "auto", stop_after: float = math.inf, part_bytes: int = PART_BYTES,
) -> list[Path]:  # fmt: skip
    """Train in the work folder, which gets the *packed* data first; return the parts, none while it isn't finished."""
    if not places.tokenizer.is_file():
        places.work.mkdir(parents=True, exist_ok=True)
        with packed.open("rb") as file:
            unpack_files(file, places.work, name=str(packed))
    if not train_phases(places, recipe, device=device, stop_after=stop_after):
        return []
    return send(places, recipe, part_bytes=part_bytes)


def send(places: Places, recipe: Recipe, *, part_bytes: int = PART_BYTES) -> list[Path]:
    """Write the weights of the last phase and the progress of all to the parts in the output folder; return these."""
    slim = places.work / "slim"
    slim.mkdir(exist_ok=True)
    files = []
    for phase in recipe.phases:
        state = torch.load(places.checkpoint(phase), weights_only=True, map_location="cpu")
        kept = {"progress": state["progress"], "device": state.get("device", "cpu")}
        if phase == list(recipe.phases)[-1]:
            kept["model"] = {name: value.to(torch.bfloat16) for name, value in state["model"].items()}
        files.append(slim / places.checkpoint(phase).name)
        torch.save(kept, files[-1])
    archive = slim / NAME
    pack_files(archive, files, folder=slim, preset=0)
    return split_file(archive, places.out, part_bytes=part_bytes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description="Train a base model from a packed corpus.")
    parser.add_argument("packed", type=Path, help="what padlite_training.pack wrote")
    parser.add_argument("--config", choices=RECIPES, default="small")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder for the parts")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--stop-after", type=float, default=math.inf, metavar="SECONDS", help="go on in another call")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    places = Places(data=options.packed, out=options.out, work=options.work)
    with told_plainly():
        parts = pretrain(
            options.packed, places, RECIPES[options.config], device=options.device, stop_after=options.stop_after
        )  # fmt: skip
    print(f"finished: {len(parts)} parts in {options.out}" if parts else "not finished: call it again to go on")


if __name__ == "__main__":
    main()
