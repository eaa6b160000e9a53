"""`padlite models pull` as people type it, against a small hub on this machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from padlite.bundle import write_manifest
from tests import hub as fake
from tests.command_line import Home
from tests.e2e.conftest import RANDOM_DIMENSIONS
from tests.hub import COMMIT, FakeHub
from tests.no_sockets import write_guard

NOISE = "ada/noise-GGUF"
FILE = "Noise-Q8_0.gguf"
CARD = b"---\nlicense: apache-2.0\n---\n# Noise\n"


@pytest.fixture
def hub(random_base: Path) -> Iterator[FakeHub]:
    """A hub with one repository that has one GGUF file."""
    with fake.serving() as served:
        served.repositories[NOISE] = {FILE: random_base.read_bytes(), "README.md": CARD, "config.json": b"{}"}
        yield served


def around(hub: FakeHub, home: Home) -> dict[str, str]:
    """What the environment says of the hub, and nothing of this machine's own."""
    kept = {"HF_HOME": str(cache_of(home).parent), "HF_HUB_CACHE": str(cache_of(home))}
    return kept | {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}


def pull(
    home: Home, hub: FakeHub, *words: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return home.run("models", "pull", *words, environment=around(hub, home) | (environment or {}))


def cache_of(home: Home) -> Path:
    return home.folder / ".cache" / "huggingface" / "hub"


def parts_in(home: Home) -> list[Path]:
    return sorted(cache_of(home).rglob("*.incomplete"))


def installed_in(home: Home) -> list[str]:
    models = home.data / "models"
    return sorted(path.name for path in models.iterdir()) if models.is_dir() else []


def require_one_line(outcome: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The run failed with this code, one line with these words, and a remedy."""
    *notes, message, remedy = outcome.stderr.splitlines()
    assert outcome.returncode == code, outcome.stderr
    assert message.startswith("padlite: ")
    assert remedy.startswith("try: ")
    assert all(word in message for word in words), message
    assert all(note.startswith(NOISE) for note in notes)  # what will be fetched


def test_a_gguf_file_becomes_a_model_that_chats_and_takes_no_second_place_on_the_disk(home: Home, hub: FakeHub) -> None:
    pulled = pull(home, hub, NOISE)
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout == "noise-q8_0: installed in ~/data/models/noise-q8_0\n"
    announced, advice = pulled.stderr.splitlines()
    assert announced == f"{NOISE} at c0ffee00: 0.1 MB, licence apache-2.0"
    assert advice == "try: padlite chat --model noise-q8_0"
    assert [asked.path.partition("?")[0].rpartition("/")[2] for asked in hub.asked] == ["main", FILE, FILE, "README.md"]
    assert {len(asked.agent.split(";")) for asked in hub.asked} == {3}  # padlite, the library, Python: nothing more

    folder = home.data / "models" / "noise-q8_0"
    shown = json.loads(home.run("models", "show", "noise-q8_0", "--json").stdout)
    assert shown["license"] == "apache-2.0"
    assert shown["training"] == {"repository": f"huggingface.co/{NOISE}", "commit": COMMIT, "file": FILE}
    assert (folder / "card.md").read_bytes() == CARD
    assert home.run("chat", "-m", "noise-q8_0", "-p", "Hello.", "--max-tokens", "3").stdout.strip()

    base = folder / "base.gguf"
    assert (base.stat().st_nlink, base.is_symlink()) == (2, False)
    removed = home.run("models", "rm", "noise-q8_0", "--yes")
    assert "hf cache rm" in removed.stderr
    assert list(cache_of(home).rglob(FILE))


def test_a_bundle_comes_whole_and_under_its_own_name(
    home: Home, hub: FakeHub, random_base: Path, random_head: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    for name, source in (("base.gguf", random_base), ("reward.onnx", random_head)):
        (made / name).write_bytes(source.read_bytes())
    write_manifest(made, name="hum", license="MIT", dimensions=RANDOM_DIMENSIONS)
    files = hub.repositories["ada/hum"] = {path.name: path.read_bytes() for path in made.iterdir()}
    files["reward.onnx"] += b"\0"
    changed = pull(home, hub, "ada/hum")
    assert changed.returncode == 1
    assert "reward.onnx of ada/hum is another than its manifest says" in changed.stderr
    assert (installed_in(home), hub.paths("base.gguf")) == ([], [])

    files["reward.onnx"] = files["reward.onnx"][:-1]
    pulled = pull(home, hub, "ada/hum")
    assert pulled.returncode == 0, pulled.stderr
    assert installed_in(home) == ["hum"]
    assert home.run("chat", "-m", "hum", "-w", "alpha=1", "-p", "Hi.", "--max-tokens", "3").stdout.strip()


def test_among_several_files_the_person_chooses(home: Home, hub: FakeHub) -> None:
    hub.repositories[NOISE]["small/Noise-Q2_K.gguf"] = b"GGUF"
    listed = pull(home, hub, NOISE)
    require_one_line(listed, 2, "has 2 GGUF files: choose one")
    assert [line.split(maxsplit=2)[2] for line in listed.stdout.splitlines()] == [
        f"padlite models pull {NOISE}:small/Noise-Q2_K.gguf",
        f"padlite models pull {NOISE}:{FILE}",
    ]


@pytest.mark.parametrize(("words", "variables"), [(["--offline"], {}), ([], {"HF_HUB_OFFLINE": "1"})])
def test_offline_takes_what_the_cache_has_and_opens_no_socket(
    home: Home, hub: FakeHub, tmp_path: Path, words: list[str], variables: dict[str, str]
) -> None:
    assert pull(home, hub, NOISE, "--name", "first").returncode == 0
    hub.asked.clear()
    guard = write_guard(tmp_path / "guard")
    path = os.pathsep.join([str(guard.folder), home.environment["PYTHONPATH"]])
    again = pull(home, hub, NOISE, "--name", "again", *words, environment=variables | {"PYTHONPATH": path})
    assert again.returncode == 0, again.stderr
    assert (installed_in(home), hub.asked, guard.caught) == (["again", "first"], [], "")


def test_no_other_command_for_models_opens_a_socket_and_pull_does(
    home_with_model: Home, hub: FakeHub, tmp_path: Path
) -> None:
    guard = write_guard(tmp_path / "guard")
    path = os.pathsep.join([str(guard.folder), home_with_model.environment["PYTHONPATH"]])
    base = home_with_model.data / "models" / "noise" / "base.gguf"
    for words in ("doctor --quick", f"models add {base} --name x", "models list", "models verify x"):
        outcome = home_with_model.run(*words.split(), environment={"PYTHONPATH": path})
        assert (outcome.returncode, guard.caught) == (0, ""), outcome.stderr
    assert pull(home_with_model, hub, NOISE, environment={"PYTHONPATH": path}).returncode != 0
    assert guard.caught


def test_what_goes_wrong_is_one_line_and_installs_nothing(home: Home, hub: FakeHub) -> None:
    require_one_line(pull(home, hub, "ada/nothing"), 3, "the hub has no model ada/nothing")
    hub.refuse_file = {500: ""}
    require_one_line(pull(home, hub, NOISE), 1, "the hub itself has a problem (HTTP 500)")
    hub.repositories[NOISE][FILE] = b"hello" * 10_000
    require_one_line(pull(home, hub, NOISE), 5, "is not a GGUF file")
    assert installed_in(home) == []


def test_a_disk_that_fills_up_keeps_what_came(home: Home, hub: FakeHub) -> None:
    limit = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)); "
    program = f"{limit} sys.argv[0] = 'padlite'; runpy.run_module('padlite', run_name='__main__')"
    outcome = subprocess.run(
        [sys.executable, "-c", program, "models", "pull", NOISE], env=home.environment | around(hub, home),
        capture_output=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    require_one_line(outcome, 1, "the download can't be kept in", "File too large")
    assert [0 < part.stat().st_size <= 65536 for part in parts_in(home)] == [True]
    assert installed_in(home) == []


def test_without_the_extra_it_says_what_to_install(home: Home) -> None:
    program = (
        "import sys; sys.modules['huggingface_hub'] = None; from padlite.cli import main; "
        "sys.exit(main(['models', 'pull', 'a/b']))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", program], env=home.environment, capture_output=True, encoding="utf-8", check=False
    )
    require_one_line(outcome, 3, "huggingface_hub, which isn't installed")
    assert "pip install 'padlite[hub]'" in outcome.stderr


def test_a_terminal_shows_how_far_it_is_and_after_ctrl_c_the_same_command_goes_on(home: Home, hub: FakeHub) -> None:
    hub.hold_after = 50_000
    with pexpect.spawn(
        sys.executable, ["-m", "padlite", "models", "pull", NOISE], dimensions=(24, 100), encoding="utf-8", timeout=60,
        env={**home.environment, **around(hub, home), "TERM": "xterm-256color"},
    ) as child:  # fmt: skip
        child.expect_exact("50.0/126.7 kB")
        child.sendintr()
        child.expect_exact("stopped, nothing is installed; the same command goes on from here")
        child.expect(pexpect.EOF)
    assert child.exitstatus == 130
    assert installed_in(home) == []
    hub.hold_after = None
    hub.asked.clear()
    assert pull(home, hub, NOISE).returncode == 0
    assert [asked.range for asked in hub.paths("cdn.*gguf")] == ["bytes=50000-"]


def test_a_download_that_was_killed_goes_on_too(home: Home, hub: FakeHub) -> None:
    hub.hold_after = 80_000
    with subprocess.Popen(
        [sys.executable, "-m", "padlite", "models", "pull", NOISE], env=home.environment | around(hub, home),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        while not any(part.stat().st_size for part in parts_in(home)):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    there = sum(part.stat().st_size for part in parts_in(home))
    hub.hold_after = None
    hub.asked.clear()
    assert pull(home, hub, NOISE).returncode == 0
    assert [asked.range for asked in hub.paths("cdn.*gguf")] == [f"bytes={there}-"]
