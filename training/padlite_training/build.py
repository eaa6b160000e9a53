"""From the public text to the bundle in one command; every stage is skipped when its output is there.

    python -m padlite_training.build --data DIR --out models/padlite-tiny --work build/tiny

The work folder keeps what is between: corpus, tokenizer, checkpoints, harvested states, head, evaluation. An
interrupted training goes on from its last checkpoint. To redo a stage, delete its output and those after it.
With `--start-from BUNDLE` the base goes on learning from where that bundle's is.
"""

import argparse
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from padlite.bundle import Bundle, load_bundle
from padlite.options import DecodingOptions
from padlite.whole_files import write_whole
from padlite_training import card
from padlite_training.base_gguf import open_base
from padlite_training.corpus import build_corpus, corpus_texts, load_corpus, load_small_talk, save_corpus
from padlite_training.endings import told_plainly
from padlite_training.facts import BaseFacts, EarlierFacts, HeadFacts
from padlite_training.places import Places
from padlite_training.recipe import GOING_ON_SHARE, RECIPES, Recipe

logger = logging.getLogger(__name__)

LICENCE = "Apache-2.0"


def make_corpus(places: Places) -> None:
    """Stage 1: read the sources and split them."""
    if (places.corpus / "texts.json").is_file():
        return
    corpus = build_corpus(places.data)
    save_corpus(corpus, places.corpus)
    logger.info("corpus: %d scenarios of small talk, %d chats", len(corpus.small_talk.training), len(corpus.dialogues))


def make_tokenizer(places: Places, recipe: Recipe) -> None:
    """Stage 2: learn the tokenizer."""
    from padlite_training.tokenizer import train_tokenizer

    if not places.tokenizer.is_file():
        texts = corpus_texts(load_corpus(places.corpus))
        tokenizer = train_tokenizer(texts, vocabulary=recipe.model.vocabulary)
        write_whole(places.tokenizer, tokenizer.to_str(pretty=True).encode())


def take_start(places: Places, recipe: Recipe, earlier: Bundle) -> None:
    """Stage 2 of a training that goes on from a bundle: its tokenizer, and its weights as those of the first phase."""
    from padlite_training.earlier import start_from

    if not places.facts("earlier").is_file():
        start_from(earlier, places, recipe.model, phase=next(iter(recipe.phases)))


def make_gguf(places: Places, recipe: Recipe) -> None:
    """Stage 4: write the base model as a quantized GGUF and prove that llama.cpp computes the same."""
    from padlite_training.base_training import device_of, held_out_loss, load_mixed, load_model, progress_of
    from padlite_training.export_gguf import export_gguf, measure_parity, require_same_tokens
    from padlite_training.llama_model import parameter_count
    from padlite_training.sampler import ChatWriter
    from padlite_training.tokenizer import load_tokenizer

    if places.gguf.is_file() and places.facts("base").is_file():
        return
    tokenizer, corpus = load_tokenizer(places.tokenizer), load_corpus(places.corpus)
    first, last = (places.checkpoint(phase) for phase in recipe.phases)
    going_on = places.facts("earlier").is_file()
    shape = recipe.model
    model = load_mixed(first, last, shape, share=GOING_ON_SHARE) if going_on else load_model(last, shape)
    export_gguf(model, tokenizer, places.gguf, name=places.out.name, licence=LICENCE, weights=recipe.weights)
    writer = ChatWriter(tokenizer, user_weight=1.0)
    dialogues = corpus.held_out_dialogues[:8]
    prompts = [writer.chat([], [writer.encode(t) for t in each.turns], user_weight=1.0).tokens for each in dialogues]
    with open_base(places.gguf) as base:
        require_same_tokens(tokenizer, base)
        parity = measure_parity(model, base, prompts)
    facts = BaseFacts(
        weights=parameter_count(model),
        phases={phase: progress_of(places.checkpoint(phase)) for phase in recipe.phases},
        held_out_loss=held_out_loss(model, corpus, writer, limit=len(corpus.held_out_dialogues)),
        parity=parity,
        earlier=EarlierFacts.load(places.facts("earlier")) if going_on else None,
        device=device_of(last),
    )
    facts.save(places.facts("base"))
    logger.info("base model: held-out loss %.3f nats per token, %s", facts.held_out_loss, parity)


def gather(places: Places, recipe: Recipe) -> None:
    """Stage 5: let the contrast teacher answer training questions and keep the states."""
    from padlite_training.harvest import harvest_in_parallel

    path = places.work / "harvest.npz"
    if not path.is_file():
        corpus = load_corpus(places.corpus)
        ordinary = [dialogue for dialogue in corpus.dialogues if dialogue.kind in ("self", "persona", "chat")]
        scenarios = corpus.small_talk.training
        harvest_in_parallel(places.gguf, scenarios, ordinary, recipe.head, processes=recipe.base.threads).save(path)


def fit(places: Places, recipe: Recipe) -> None:
    """Stage 6: distil the head from the harvest, calibrate it and write it for the runtime."""
    from padlite_training.distill import calibrate, fit_head
    from padlite_training.harvest import Harvest
    from padlite_training.head_file import output_table, style_dimensions, write_reward

    if places.reward.is_file() and places.facts("head").is_file():
        return
    harvest, words = Harvest.load(places.work / "harvest.npz"), output_table(places.gguf)
    head = fit_head(harvest, words, recipe.head)
    head = calibrate(head, harvest, words, shift=recipe.head.mean_shift_nats)
    facts = HeadFacts(
        states=len(harvest.hidden),
        answers=recipe.head.answers,
        rank=recipe.head.rank,
        epochs=head.epochs,
        explained=head.explained,
        scales=[float(scale) for scale in head.scales],
    )
    provenance = {"states": str(facts.states), "explained": f"{facts.explained:.3f}", "epochs": str(facts.epochs)}
    with open_base(places.gguf) as base:
        dimensions = style_dimensions(head.scales)
        write_reward(
            places.reward, head, dimensions=dimensions, table=words, base=base, provenance=provenance
        )  # fmt: skip
    facts.save(places.facts("head"))


def read_texts(places: Places) -> None:
    """Stage 7: let the head learn which weights a person's own words stand for."""
    from padlite_training.told import add_text_map

    if not places.facts("texts").is_file():
        add_text_map(places.gguf, places.reward).save(places.facts("texts"))


def judge(places: Places, recipe: Recipe) -> None:
    """Stage 8: measure what the bundle does on held-out questions."""
    from padlite.backends.onnx import OnnxHead
    from padlite_training.evaluate import ANSWER_LIMIT, evaluate, shortfalls, table

    if places.facts("evaluation").is_file():
        return
    options = DecodingOptions(strength=recipe.strength, candidates=recipe.candidates, max_tokens=ANSWER_LIMIT)
    split = load_small_talk(places.corpus)
    with open_base(places.gguf) as base, OnnxHead.open(places.reward, device="cpu") as reward:
        evaluation = evaluate(base, reward, split, options)
    evaluation.save(places.facts("evaluation"))
    print(table(evaluation))
    for line in shortfalls(evaluation):
        logger.warning("below the bar: %s", line)


def compare_rivals(places: Places, recipe: Recipe) -> None:
    """Stage 9: what `padlite eval` says of the head and of simpler ways."""
    from padlite_training.compare import compare

    compare(places, recipe.comparison, _Logged())


class _Logged:
    """Progress as lines of the log."""

    def say(self, text: str) -> None:
        """Log a line."""
        logger.info("%s", text)

    @contextlib.contextmanager
    def counting(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Log how many of *total* steps are done."""
        yield lambda done: logger.info("%s: %d of %d", text, done, total)


def build(places: Places, recipe: Recipe, *, device: str = "auto", earlier: Bundle | None = None) -> None:
    """Run every stage whose output is missing; stage 3, the training of the base model, on *device*.

    The base goes on from that of the bundle *earlier*, if there is one, and spends all of its time on small talk.
    """
    places.work.mkdir(parents=True, exist_ok=True)
    places.out.mkdir(parents=True, exist_ok=True)
    make_corpus(places)
    if earlier is not None:
        recipe = recipe.going_on()
        take_start(places, recipe, earlier)
    make_tokenizer(places, recipe)
    from padlite_training.base_training import train_phases

    train_phases(places, recipe, device=device)
    make_gguf(places, recipe)
    gather(places, recipe)
    fit(places, recipe)
    read_texts(places)
    judge(places, recipe)
    compare_rivals(places, recipe)
    card.write(places.out, places.work, recipe, licence=LICENCE)


def rushed(recipe: Recipe, seconds: float) -> Recipe:
    """Return *recipe* with so little training that the chain can be tried in minutes; the result talks nonsense."""
    return replace(
        recipe,
        base=replace(recipe.base, budget_s=seconds, compiled=False),
        focus=replace(recipe.focus, budget_s=seconds, compiled=False),
        head=replace(recipe.head, answers=60, epochs=3),
        comparison=replace(recipe.comparison, prompts=2, pairs_each=2),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the bundle named on the command line."""
    parser = argparse.ArgumentParser(description="Train the bundled model from public text to a bundle.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the public text (training/README.md)")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything in between")
    parser.add_argument("--config", choices=RECIPES, default="tiny", help="tiny: two processor cores; small: a GPU")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the base is trained")
    parser.add_argument("--start-from", type=Path, metavar="BUNDLE", help="folder of a bundle whose base learns on")
    parser.add_argument("--focus-minutes", type=float, metavar="M", help="how long the second phase takes")
    parser.add_argument("--rush", type=float, metavar="SECONDS", help="try the chain: so much training per phase only")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for noisy in ("padlite", "gguf"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    recipe = RECIPES[options.config] if options.rush is None else rushed(RECIPES[options.config], options.rush)
    if options.focus_minutes is not None:
        recipe = replace(recipe, focus=replace(recipe.focus, budget_s=60.0 * options.focus_minutes))
    places = Places(data=options.data, out=options.out, work=options.work)
    with told_plainly():
        earlier = load_bundle(options.start_from) if options.start_from else None
        build(places, recipe, device=options.device, earlier=earlier)


if __name__ == "__main__":
    main()
