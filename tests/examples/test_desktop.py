"""The window in examples/desktop, in a process of its own and without a screen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import padlite
from tests.command_line import REPOSITORY, Home

pytest.importorskip("PySide6.QtWidgets", reason="needs Qt: pip install PySide6-Essentials", exc_type=ImportError)

WINDOW = """
import sys, time
sys.path.insert(0, {folder!r})
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QSlider
from window import Window

def until(condition):
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end, window.statusBar().currentMessage()
        QTest.qWait(5)

def say(text):
    window.line.setText(text)
    QTest.keyClick(window.line, "\\r")

application = QApplication([])
window = Window({profile!r})
window.show()
"""


def _run(home: Home, program: str, profile: str | None = None) -> subprocess.CompletedProcess[str]:
    opening = WINDOW.format(folder=str(REPOSITORY / "examples" / "desktop"), profile=profile)
    environment = {**home.environment, "QT_QPA_PLATFORM": os.environ.get("QT_QPA_PLATFORM", "offscreen")}
    done = subprocess.run(
        [sys.executable, "-c", opening + program], env=environment, cwd=home.folder, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    done.stderr = done.stderr.replace(
        "This plugin does not support propagateSizeHints()\n", ""
    )  # Qt's offscreen screen
    return done


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(folder=tmp_path)


def test_a_slider_steers_the_answer_and_the_changed_word_says_why(home: Home) -> None:
    done = _run(
        home,
        """
assert not window.send.isEnabled()
until(window.send.isEnabled)
sliders = {slider.accessibleName(): slider for slider in window.findChildren(QSlider)}
sliders["caring"].setValue(10)
say("What should I do today?")
assert window.halt.isEnabled() and not window.send.isEnabled()
until(window.send.isEnabled)
window.grab().save("window.png")
print(window.talk.toPlainText())
print("because of caring" in window.talk.toHtml() or any(
    "because of caring" in part.fragment().charFormat().toolTip()
    for block in [window.talk.document().findBlockByNumber(at) for at in range(window.talk.document().blockCount())]
    for part in block))
window.close()
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    with padlite.open(padlite.Profile(preferences={"caring": 1.0}, threads=1)) as chat:
        answer = chat.reply("What should I do today?").text
    assert done.stdout == f"› What should I do today?\n\n{answer}\nTrue\n"
    assert (home.folder / "window.png").stat().st_size > 5000


def test_the_stop_button_ends_an_answer_while_the_window_stays_alive(home: Home, random_base: Path) -> None:
    profile = home.folder / "endless.toml"
    profile.write_text(f'base = "{random_base}"\n[engine]\ncontext_length = 100000\nthreads = 1\n', encoding="utf-8")
    done = _run(
        home,
        """
until(window.send.isEnabled)
say("go on for ever")
until(lambda: len(window.talk.toPlainText()) > 60)
window.halt.click()
until(window.send.isEnabled)
print(window.statusBar().currentMessage())
say("and now?")
until(lambda: "and now?" in window.talk.toPlainText() and window.halt.isEnabled())
window.close()
print("closed")
""",
        str(profile),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Stopped\nclosed\n", "")


def test_a_profile_that_is_not_there_is_said_in_the_window(home: Home) -> None:
    done = _run(home, 'until(lambda: "nobody" in window.statusBar().currentMessage())\nwindow.close()\n', "nobody")
    assert (done.returncode, done.stderr) == (0, "")
