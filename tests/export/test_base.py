"""`padlite export base`: the GGUF computes and reads as the checkpoint does, and bad input is refused in one line."""

import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace

import psutil
import pytest
import sentencepiece
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from padlite.backends import llama_files
from padlite.backends.llama import version
from padlite.decode import Token
from padlite.errors import BackendError, NotFoundError, PadliteError, UsageError
from padlite.opening import open_chat
from padlite.profile import Profile
from padlite_export.base import BaseReport, export_base
from padlite_export.converter import SCRIPT, find_converter
from padlite_export.placing import placing
from padlite_export.random_checkpoint import write_checkpoint
from padlite_export.room import read_weights, require_memory
from padlite_training.chat_format import CONTROL_TOKENS

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CUTS = {
    "qwen2": rf"{_WORDS}|\p{{N}}|{_REST}",
    "llama-bpe": rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}",
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "unknown": r"[aeiou]|[^aeiou]+",
}
"""The pattern by which three of llama.cpp's pre-tokenizers cut, and one that it hasn't."""


def write_trained_tokenizer(folder: Path, pattern: str) -> None:
    """Replace the tokenizer in *folder* by one of 512 tokens, trained on text that *pattern* cuts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    numbers = "".join(f"{n * n} (it's {n})!!!\n\n" for n in range(400))
    text = "".join(topics.values())[:100_000]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=[*CONTROL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([numbers, text], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in CONTROL_TOKENS])
    assert tokenizer.get_vocab_size() == 512
    tokenizer.save(str(folder / "tokenizer.json"))


def llama(folder: Path, cut: str = "qwen2", *, tied: bool = True) -> Path:
    write_checkpoint(folder, sizes={"tie_word_embeddings": tied})
    write_trained_tokenizer(folder, CUTS[cut])
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def quantized(source: Path, converter: Path, tmp_path_factory: pytest.TempPathFactory) -> BaseReport:
    """The source as f32, then q8_0."""
    folder = tmp_path_factory.mktemp("quantized")
    return export_base(
        source, folder / "base.gguf", kept=folder, converter=converter, dtype="f32", quantize="q8_0", threads=1
    )


def test_the_gguf_computes_what_the_checkpoint_does(quantized: BaseReport) -> None:
    against = quantized.against_source.overall
    assert against.logits_difference < 1e-3
    assert against.same_best >= 0.999
    assert min(against.logits_cosine, against.hidden_cosine) > 0.999999
    assert against.states > 200
    assert {each.prompt for each in quantized.against_source.prompts} > {"english", "code", "random tokens"}


def test_the_quantized_one_is_told_apart_from_the_unquantized(quantized: BaseReport) -> None:
    against = quantized.against_unquantized
    assert against is not None
    assert 0.01 < against.overall.logits_difference < 2
    assert 0.99 < against.overall.logits_cosine < 0.99999
    assert quantized.file_bytes < 0.4 * 4 * quantized.parameters


def test_the_pre_tokenizer_is_found_by_comparing_and_said(quantized: BaseReport) -> None:
    found = quantized.pre_tokenizer
    assert found.how == "compared"
    assert found.texts > 50
    assert found.names[0] == "qwen2"
    assert "gpt-2" not in found.names
    assert f"cuts {found.texts} texts" in dict(quantized.rows())["pre-tokenizer"]
    assert quantized.reading.differing == ()
    assert quantized.reading.texts > 12


def test_the_proof_is_kept_beside_the_file_and_nothing_else(quantized: BaseReport) -> None:
    names = sorted(path.name for path in quantized.path.parent.iterdir())
    assert names == ["base.gguf", "base.gguf.proof.json"]
    proof = json.loads((quantized.path.parent / "base.gguf.proof.json").read_text())
    assert proof["against_source"]["overall"]["logits_difference"] == quantized.against_source.overall.logits_difference
    assert proof["quantized"] == "q8_0"


def test_an_exported_base_chats_by_its_own_template(quantized: BaseReport) -> None:
    with open_chat(Profile(base=quantized.path, decoding={"max_tokens": 8}, threads=1)) as chat:
        assert len([event for event in chat.session.say("Hello.") if isinstance(event, Token)]) > 0


def write_sentencepiece_tokenizer(folder: Path) -> None:
    """Replace the tokenizer in *folder* by sentencepiece's of 512 tokens, and the same as tokenizer.json."""
    (folder / "text.txt").write_text("".join(topics.values())[:100_000], encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=512,
        byte_fallback=True, add_dummy_prefix=False, normalization_rule_name="identity", remove_extra_whitespaces=False,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocabulary = {pieces.id_to_piece(i): i for i in range(512)}
    pairs = [
        (i, piece[:at], piece[at:])
        for piece, i in vocabulary.items()
        for at in range(1, len(piece))
        if i > 3 + 256 and piece[:at] in vocabulary and piece[at:] in vocabulary
    ]
    merges = [(left, right) for _, left, right in sorted(pairs)]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<pad>", "</s>", "<s>", "<unk>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("model_type", "cut", "sizes"),
    [
        ("llama", "llama-bpe", {"tie_word_embeddings": False}),
        ("qwen2", "qwen2", {"tie_word_embeddings": False}),
        ("qwen3", "qwen2", {"head_dim": 16}),
        ("gemma", "", {"head_dim": 16}),
        ("gemma3_text", "", {"head_dim": 16, "sliding_window": 64, "query_pre_attn_scalar": 16}),
        ("phi", "gpt-2", {"tie_word_embeddings": False, "num_key_value_heads": 4, "intermediate_size": 256}),
        ("gpt_neox", "gpt-2", {"tie_word_embeddings": False, "num_key_value_heads": 4}),
        ("smollm3", "llama-bpe", {}),
    ],
)
def test_other_architectures_compute_and_read_as_their_source_does(
    tmp_path: Path, converter: Path, model_type: str, cut: str, sizes: dict[str, int]
) -> None:
    folder = write_checkpoint(tmp_path / "source", model_type=model_type, sizes=sizes)
    if cut:
        write_trained_tokenizer(folder, CUTS[cut])
    else:
        write_sentencepiece_tokenizer(folder)
    report = export_base(folder, tmp_path / "base.gguf", kept=tmp_path, converter=converter, dtype="f32", threads=1)
    gelu = model_type in {"gemma", "gemma3_text", "phi", "gpt_neox"}
    assert report.against_source.overall.logits_difference < (0.01 if gelu else 1e-3)
    assert report.against_source.overall.same_best > 0.99
    assert report.against_source.overall.hidden_cosine > 0.99999
    assert report.architecture == model_type
    assert report.reading.differing == ()
    assert report.pre_tokenizer.names[:1] == ((cut,) if cut else report.pre_tokenizer.names[:1])
    assert report.pre_tokenizer.how == ("compared" if cut else "not asked")


def test_a_tokenizer_that_llama_cpp_cannot_imitate_is_refused_but_for_pre(tmp_path: Path, converter: Path) -> None:
    folder, out = llama(tmp_path / "source", "unknown"), tmp_path / "base.gguf"
    with pytest.raises(BackendError, match=r"none of llama\.cpp's pre-tokenizers") as raised:
        export_base(folder, out, kept=tmp_path, converter=converter, threads=1)
    assert "--pre" in raised.value.remedy
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    report = export_base(folder, out, kept=tmp_path, converter=converter, pre="gpt-2", threads=1)
    assert report.pre_tokenizer.how == "named"
    assert report.reading.alike < report.reading.texts
    assert "; not '" in dict(report.rows())["tokenizer"]


def write_source_archive(folder: Path, *, stated: str, script: str = SCRIPT) -> Path:
    """Write an archive like llama-cpp-python's, whose build backend gives metadata and compiles nothing, and say so."""
    root = f"llama_cpp_python-{version()}"
    metadata = f"Metadata-Version: 2.1\\nName: llama_cpp_python\\nVersion: {version()}\\n"
    backend = (
        "import pathlib\n"
        "def prepare_metadata_for_build_wheel(folder, settings=None):\n"
        f"    made = pathlib.Path(folder, '{root}.dist-info')\n"
        "    made.mkdir()\n"
        f"    made.joinpath('METADATA').write_text('{metadata}')\n"
        "    return made.name\n"
        "def build_wheel(*arguments):\n"
        "    raise SystemExit('asked to compile')\n"
    )
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {stated}\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": backend,
        f"vendor/llama.cpp/{script}": "print('converter')\n",
        "vendor/llama.cpp/conversion/base.py": "",
        "vendor/llama.cpp/src/llama.cpp": "large\n",
    }
    archive = folder / f"{root}.tar.gz"
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{root}/{name}")
            member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()))
    return archive


def use_index(monkeypatch: pytest.MonkeyPatch, folder: Path, archive: Path, *, sha256: str = "") -> None:
    """Make a package index in *folder* with *archive* alone, and pip use it."""
    page = folder / "simple" / "llama-cpp-python" / "index.html"
    page.parent.mkdir(parents=True)
    digest = sha256 or hashlib.sha256(archive.read_bytes()).hexdigest()
    page.write_text(f'<a href="{archive.as_uri()}#sha256={digest}">{archive.name}</a>')
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (folder / "simple").as_uri())
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)


def test_the_converter_is_fetched_once_and_nothing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_index(monkeypatch, tmp_path, write_source_archive(tmp_path / "archives", stated=version()))
    told: list[str] = []
    folder = find_converter(None, tmp_path / "kept", told.append)
    assert (folder / SCRIPT).is_file()
    assert (folder / "conversion" / "base.py").is_file()
    assert not (folder / "src").exists()
    shutil.rmtree(tmp_path / "simple")
    assert find_converter(None, tmp_path / "kept", told.append) == folder
    assert len(told) == 1
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [folder.name]


def test_an_archive_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_source_archive(tmp_path / "archives", stated=version())
    use_index(monkeypatch, tmp_path, archive, sha256="0" * 64)
    with pytest.raises(NotFoundError, match=r"HASH|hash") as raised:
        find_converter(None, tmp_path / "kept", lambda _line: None)
    assert "--converter" in raised.value.remedy
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize(
    ("stated", "script", "reason"),
    [("0.0.1", SCRIPT, f"isn't version {version()}"), (version(), "other.py", "holds no convert_hf_to_gguf.py")],
)
def test_another_archive_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: str, script: str, reason: str
) -> None:
    use_index(monkeypatch, tmp_path, write_source_archive(tmp_path / "archives", stated=stated, script=script))
    with pytest.raises(BackendError, match=reason):
        find_converter(None, tmp_path / "kept", lambda _line: None)
    assert list((tmp_path / "kept").iterdir()) == []


def test_without_a_network_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_source_archive(tmp_path / "archives", stated=version())
    use_index(monkeypatch, tmp_path, archive)
    archive.unlink()
    with pytest.raises(NotFoundError, match="can't be fetched") as raised:
        find_converter(None, tmp_path / "kept", lambda _line: None)
    assert "--converter DIR" in raised.value.remedy
    with pytest.raises(NotFoundError, match=r"there is no convert_hf_to_gguf\.py"):
        find_converter(tmp_path, tmp_path / "kept", lambda _line: None)


def test_names_that_llama_cpp_lacks_are_refused_with_what_was_meant(
    source: Path, tmp_path: Path, converter: Path
) -> None:
    out = tmp_path / "base.gguf"
    with pytest.raises(UsageError, match="did you mean 'q8_0'"):
        export_base(source, out, kept=tmp_path, converter=converter, quantize="q8")
    with pytest.raises(UsageError, match="did you mean 'qwen2'"):
        export_base(source, out, kept=tmp_path, converter=converter, pre="qwen-2")
    assert list(tmp_path.iterdir()) == []


def write_converter(folder: Path, body: str) -> Path:
    """Write a converter whose main function is *body*."""
    (folder / "conversion").mkdir(parents=True)
    (folder / SCRIPT).write_text(f"import sys, time\n\ndef main():\n    {body}\n")
    (folder / "conversion" / "base.py").write_text(
        "class ModelBase:\n    load_hparams = None\n\nclass TextModel:\n    get_vocab_base_pre = None\n"
    )
    return folder


def refused(kind: type[PadliteError], source: Path, folder: Path, converter: Path) -> PadliteError:
    """Return the error of an export into *folder*, in which nothing may be left."""
    before = sorted(folder.iterdir())
    with pytest.raises(kind) as raised:
        export_base(source, folder / "base.gguf", kept=folder, converter=converter, threads=1)
    assert sorted(folder.iterdir()) == before
    assert "\n" not in raised.value.message
    assert "Traceback" not in raised.value.message
    assert raised.value.remedy
    return raised.value


def test_what_is_no_checkpoint_is_refused_before_anything_is_fetched(source: Path, tmp_path: Path) -> None:
    nowhere, out = tmp_path / "nowhere", tmp_path / "out"
    out.mkdir()
    assert "no checkpoint" in refused(NotFoundError, tmp_path, out, nowhere).message
    for missing, said in (("tokenizer.json", "no tokenizer.json"), ("model.safetensors", "no weights")):
        folder = shutil.copytree(source, tmp_path / missing)
        (folder / missing).unlink()
        assert said in refused(NotFoundError, folder, out, nowhere).message
    folder = tmp_path / "model.safetensors"
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    assert "can't be read" in refused(BackendError, folder, out, nowhere).message
    folder = shutil.copytree(source, tmp_path / "config.json")
    (folder / "config.json").write_text('{"model_type": ')
    assert "config.json can't be read: Expecting value" in refused(BackendError, folder, out, nowhere).message
    with pytest.raises(UsageError, match="is no folder"):
        export_base(source, tmp_path / "none" / "base.gguf", kept=tmp_path, converter=nowhere)
    with pytest.raises(UsageError, match="isn't named like a GGUF file") as raised:
        export_base(source, out / "base", kept=tmp_path, converter=nowhere)
    assert raised.value.remedy == f"write to {out / 'base.gguf'}"


def test_an_architecture_that_llama_cpp_lacks_is_named(tmp_path: Path, converter: Path) -> None:
    source, out = write_checkpoint(tmp_path / "source", model_type="opt"), tmp_path / "out"
    out.mkdir()
    assert "Model OPTForCausalLM is not supported" in refused(BackendError, source, out, converter).message


def test_weights_that_do_not_belong_to_the_configuration_are_refused(
    source: Path, tmp_path: Path, converter: Path
) -> None:
    folder, out = shutil.copytree(source, tmp_path / "source"), tmp_path / "out"
    out.mkdir()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    assert "can't be read as a causal" in refused(BackendError, folder, out, converter).message


def test_pickled_weights_need_a_word_and_the_danger_is_said(source: Path, tmp_path: Path, converter: Path) -> None:
    folder, out = shutil.copytree(source, tmp_path / "source"), tmp_path / "out"
    out.mkdir()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "may run any code" in refused(UsageError, folder, out, converter).message
    told: list[str] = []
    report = export_base(
        folder, out / "base.gguf", kept=tmp_path, converter=converter, allow_pickle=True, threads=1, tell=told.append
    )
    assert report.against_source.overall.logits_difference < 0.1
    assert any("may run any code" in line for line in told)


def test_a_converter_that_fails_is_quoted_without_its_traceback(source: Path, tmp_path: Path) -> None:
    broken = write_converter(tmp_path / "converter", "print('INFO:x:fine'); raise ValueError('tensor 7 is odd')")
    out = tmp_path / "out"
    out.mkdir()
    assert refused(BackendError, source, out, broken).message.endswith(": ValueError: tensor 7 is odd")


def test_too_little_room_is_found_before_anything_is_written(
    source: Path, tmp_path: Path, converter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1_000))
    assert "are free" in refused(BackendError, source, tmp_path, converter).message


def test_too_little_memory_for_the_comparison_is_found_before_anything_is_written(
    source: Path, tmp_path: Path, converter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = sum(each.numel() for each in load_file(source / "model.safetensors").values())
    assert read_weights(source).float32_bytes == 4 * weights
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=3 * weights))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(free=weights - 1))
    assert "of memory, 4 bytes for each weight" in refused(BackendError, source, tmp_path, converter).message
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(free=weights))
    require_memory(read_weights(source))


def test_pickled_weights_take_at_least_their_files_size_in_memory(tmp_path: Path) -> None:
    for name, size in (("pytorch_model-1.bin", 800), ("pytorch_model-2.bin", 200), ("optimizer.pt", 4000)):
        (tmp_path / name).write_bytes(bytes(size))
    weights = read_weights(tmp_path)
    assert (weights.float32_bytes, weights.count) == (1000, 2500)


def command(source: Path, folder: Path, converter: Path, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "padlite", "export", "base", str(source), "--out", str(folder / "base.gguf"),
        "--converter", str(converter), "--threads", "1", *options,
    ]  # fmt: skip


def test_a_disk_that_fills_up_in_the_middle_leaves_what_was_there(
    source: Path, tmp_path: Path, converter: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "base.gguf").write_bytes(b"from before")
    ended = subprocess.run(
        command(source, out, converter, "--dtype", "f32"), capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    assert ended.returncode == 5
    assert "there isn't room for base.gguf" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path.name for path in out.iterdir()] == ["base.gguf"]
    assert (out / "base.gguf").read_bytes() == b"from before"


def test_weights_that_cannot_be_quantized_give_llama_cpps_reason(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"can't be written as q8_0: .*none\.gguf"):
        llama_files.quantize(tmp_path / "none.gguf", tmp_path / "made.gguf", "q8_0", threads=1)


def stop_in_the_middle(source: Path, folder: Path, number: signal.Signals) -> tuple[int, str, int]:
    """Send the signal *number* to an export to *folder* / "out" when the converter has begun.

    Return the export's exit code, what it said, and the process id of the converter.
    """
    out, sign = folder / "out", folder / "begun"
    out.mkdir()
    slow = write_converter(
        folder / "converter",
        f"import os; open(sys.argv[3], 'w').write('half'); "
        f"open({str(sign)!r} + '~', 'w').write(str(os.getpid())); os.rename({str(sign)!r} + '~', {str(sign)!r}); "
        "time.sleep(300)",
    )
    process = subprocess.Popen(command(source, out, slow), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not sign.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors, int(sign.read_text())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_export_leaves_nothing_and_no_process(
    source: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    ended, errors, converter = stop_in_the_middle(source, tmp_path, number)
    assert ended == code
    assert "Traceback" not in errors
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(converter, 0)


def test_a_killed_export_leaves_no_process_and_the_next_one_removes_its_folder(source: Path, tmp_path: Path) -> None:
    ended, _, converter = stop_in_the_middle(source, tmp_path, signal.SIGKILL)
    assert ended == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while psutil.pid_exists(converter) and psutil.Process(converter).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [path.name[:18] for path in (tmp_path / "out").iterdir()] == [".base.gguf.padlite"]
    with placing(tmp_path / "out" / "base.gguf") as made:
        made.write_text("whole")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["base.gguf"]
