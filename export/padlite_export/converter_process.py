"""Runs llama.cpp's converter inside a process of its own: `python -m padlite_export.converter_process JOB.json`.

A job is `padlite_export.converting.Job` as JSON. A BPE tokenizer that the converter doesn't know by its hash is
written with a stand-in first, its vocabulary alone, and compared (`padlite_export.pre_tokenizers`). How the
pre-tokenizer was found goes to ``pre.json`` in the job's *work*. Code that a checkpoint brings along isn't run.
Whoever starts it holds the other end of its standard input: when that closes, the process ends.
"""

import importlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import transformers
from tokenizers import Tokenizer

from padlite.backends import llama_files
from padlite.errors import PadliteError
from padlite_export.pre_tokenizers import detect, known_names

_STAND_IN = "gpt-2"
FOUND = "pre.json"


class _Converter(Protocol):
    """What is used of `convert_hf_to_gguf`."""

    main: Callable[[], None]


class _TextModel(Protocol):
    """What is used of its class of language models."""

    get_vocab_base_pre: Callable[[object, object], str]


def main() -> None:
    """Do the job in the file that the command line names."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder, source, work = Path(job["converter"]), Path(job["source"]), Path(job["work"])
    logging.getLogger("padlite").setLevel(logging.ERROR)
    _trust_no_code()
    sys.path.insert(0, str(folder))
    converter = cast("_Converter", importlib.import_module("convert_hf_to_gguf"))
    _use_former_names()
    asked = _Asked(folder=folder, source=source, work=work, named=job["pre"], run=lambda *a: _run(converter, *a))
    _text_model().get_vocab_base_pre = asked.answering(_text_model().get_vocab_base_pre)
    _run(converter, str(source), "--outfile", job["out"], "--outtype", job["dtype"])
    (work / FOUND).write_text(json.dumps(asked.found), encoding="utf-8")
    if job["quantized"]:
        llama_files.quantize(Path(job["out"]), Path(job["quantized"]), job["quantize"], threads=job["threads"])


def _end_with_the_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # not by sys.stdin, whose lock would be held while the interpreter shuts down
    os._exit(1)


def _run(converter: _Converter, *arguments: str) -> None:
    sys.argv = ["convert_hf_to_gguf.py", *arguments]
    converter.main()


def _trust_no_code() -> None:
    """Let no tokenizer be loaded by code of the checkpoint's own, which parts of the converter would allow."""
    original = transformers.AutoTokenizer.from_pretrained

    def from_pretrained(source: str, *arguments: object, **settings: object) -> object:
        return original(source, *arguments, **{**settings, "trust_remote_code": False})

    setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)  # noqa: B010  mypy forbids the assignment


def _use_former_names() -> None:
    """Give the converter a configuration's values by their older names as well: transformers 5 moved some."""
    models = importlib.import_module("conversion.base").ModelBase
    load = models.load_hparams

    def load_hparams(*arguments: object, **settings: object) -> dict[str, object]:
        found = load(*arguments, **settings)
        former = {
            "rotary_pct": (found.get("rope_parameters") or {}).get("partial_rotary_factor"),
            "n_ctx": found.get("n_positions"),
        }
        return {**{name: value for name, value in former.items() if value is not None}, **found}

    models.load_hparams = staticmethod(load_hparams)


def _text_model() -> _TextModel:
    """Return the converter's class of language models, which names pre-tokenizers."""
    return cast("_TextModel", importlib.import_module("conversion.base").TextModel)


class _Asked:
    """Answers the converter's question which pre-tokenizer a tokenizer has; *found* is a `converting.PreTokenizer`."""

    def __init__(self, *, folder: Path, source: Path, work: Path, named: str | None, run: Callable[..., None]) -> None:
        self._folder, self._source, self._work, self._named, self._run = folder, source, work, named, run
        self._comparing = False
        self.found: dict[str, object] = {"how": "not asked", "names": [], "texts": 0}

    def answering(self, original: Callable[[object, object], str]) -> Callable[[object, object], str]:
        """Return the method that takes the place of *original*."""

        def get_vocab_base_pre(model: object, tokenizer: object) -> str:
            if self._comparing:
                return _STAND_IN
            if self._named is not None:
                self.found = {"how": "named", "names": [self._named], "texts": 0}
                return self._named
            try:
                name = original(model, tokenizer)
            except NotImplementedError:
                return self._compare()
            self.found = {"how": "known", "names": [name], "texts": 0}
            return name

        return get_vocab_base_pre

    def _compare(self) -> str:
        vocabulary = self._work / "vocabulary.gguf"
        self._comparing = True
        try:
            self._run(str(self._source), "--outfile", str(vocabulary), "--vocab-only")
        finally:
            self._comparing = False
        tokenizer = Tokenizer.from_file(str(self._source / "tokenizer.json"))
        detected = detect(vocabulary, tokenizer, known_names(self._folder))
        self.found = {"how": "compared", "names": list(detected.names), "texts": detected.texts}
        return detected.name


if __name__ == "__main__":
    try:
        main()
    except PadliteError as error:
        told = {"message": error.message, "remedy": error.remedy, "kind": type(error).__name__}
        sys.stderr.write("\n" + json.dumps(told) + "\n")
        sys.exit(error.exit_code)
