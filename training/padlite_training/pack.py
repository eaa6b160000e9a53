"""Packs what a training on another machine needs, the corpus and its tokenizer, into one file.

    python -m padlite_training.pack --data DIR --config small --work build/small --out small-data.tar.xz

`pretrain` takes it there; it must fit into a limit that the way there may have.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from padlite.errors import UsageError
from padlite_training.build import make_corpus, make_tokenizer
from padlite_training.endings import told_plainly
from padlite_training.parts import pack_files
from padlite_training.places import Places
from padlite_training.recipe import RECIPES, Recipe

logger = logging.getLogger(__name__)

LIMIT_MB = 60.0


def pack(places: Places, recipe: Recipe, archive: Path, *, limit_mb: float = LIMIT_MB) -> None:
    """Write corpus and tokenizer to *archive*, made first where they are absent.

    Raises UsageError, and leaves no file, when it is larger than *limit_mb*.
    """
    places.work.mkdir(parents=True, exist_ok=True)
    make_corpus(places)
    make_tokenizer(places, recipe)
    pack_files(archive, [*sorted(places.corpus.iterdir()), places.tokenizer], folder=places.work)
    size_mb = archive.stat().st_size / 1e6
    if size_mb > limit_mb:
        archive.unlink()
        raise UsageError(f"the packed data has {size_mb:.0f} MB, the limit is {limit_mb:g}", remedy="raise --limit-mb")
    logger.info("%s: %.1f MB", archive, size_mb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack what the command line names."""
    parser = argparse.ArgumentParser(description="Pack corpus and tokenizer for a training on another machine.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the public text (training/README.md)")
    parser.add_argument("--config", choices=RECIPES, default="small")
    parser.add_argument("--work", type=Path, required=True, help="the training's work folder, here")
    parser.add_argument("--out", type=Path, required=True, help="the packed file")
    parser.add_argument("--limit-mb", type=float, default=LIMIT_MB)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    places = Places(data=options.data, out=options.work, work=options.work)
    with told_plainly():
        pack(places, RECIPES[options.config], options.out, limit_mb=options.limit_mb)


if __name__ == "__main__":
    main()
