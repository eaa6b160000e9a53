"""A window with sliders: personalized chat on the desktop, with Qt.

    pip install PySide6-Essentials && python examples/desktop/window.py [PROFILE]

The model is opened and read on threads of its own; the window hears of it through signals, so it never waits. A slider
sets `chat.weights` at once, in mid-answer too: the next token uses it. Stop calls `chat.cancel()`.
"""

import sys
import threading

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QCloseEvent, QColor, QTextCharFormat, QTextCursor
from PySide6.QtWidgets import (
    QApplication,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMainWindow,
    QPushButton,
    QSlider,
    QTextEdit,
    QVBoxLayout,
    QWidget,
)

import padlite

STEPS = 10  # of a slider between 0 and 1
HUES = (12, 270, 210, 140, 40, 320, 185, 70)  # degrees, one a dimension


class Engine(QObject):
    """The chat, on threads of its own; what happens there arrives in the window as signals."""

    opened = Signal()
    said = Signal(str, int, str)  # a piece of text, the dimension that changed it or -1, what it is instead of
    ended = Signal(str)  # how
    failed = Signal(str)

    def __init__(self, profile: str | None) -> None:
        super().__init__()
        self.chat: padlite.Chat | None = None
        self._profile = profile
        self._thread = threading.Thread(target=self._open)
        self._thread.start()

    def ask(self, text: str) -> None:
        """Let *text* be answered."""
        self._thread.join()
        self._thread = threading.Thread(target=self._answer, args=(text,))
        self._thread.start()

    def stop(self) -> None:
        """End the answer."""
        if self.chat:
            self.chat.cancel()

    def close(self) -> None:
        """End everything and free the model."""
        self.stop()
        self._thread.join()
        if self.chat:
            self.chat.close()

    def _open(self) -> None:
        try:
            self.chat = padlite.open(self._profile)
        except padlite.PadliteError as error:
            self.failed.emit(f"{error.message} (try: {error.remedy})")
        else:
            self.opened.emit()

    def _answer(self, text: str) -> None:
        if self.chat is None:
            return
        heard = 0
        try:
            for event in self.chat.events(text):
                if isinstance(event, padlite.Token):
                    heard += len(event.text)
                    self.said.emit(event.text, *self._because(event))
                elif isinstance(event, padlite.Finished):
                    self.said.emit(event.answer.text[heard:], -1, "")
                    self.ended.emit(str(event.answer.finish_reason))
        except padlite.PadliteError as error:
            self.failed.emit(f"{error.message} (try: {error.remedy})")

    def _because(self, token: padlite.Token) -> tuple[int, str]:
        trace = token.trace
        at = trace.strongest_dimension
        if at is None or self.chat is None:
            return -1, ""
        instead = self.chat.describe_token(int(trace.candidates[trace.base_choice]))
        return at, f"instead of “{instead}”, because of {self.chat.dimensions[at].name}"


class Window(QMainWindow):
    """The conversation on the left, what the person wants on the right."""

    def __init__(self, profile: str | None = None) -> None:
        super().__init__()
        self.setWindowTitle("padlite")
        self.resize(900, 520)
        self.talk, self.line = QTextEdit(readOnly=True), QLineEdit(placeholderText="Say something")
        self.talk.setAccessibleName("Conversation")
        self.line.setAccessibleName("Your message")
        self.send, self.halt = QPushButton("Send"), QPushButton("Stop")
        self.sliders = QFormLayout()
        self._lay_out()
        self.engine = Engine(profile)
        self.engine.opened.connect(self._opened)
        self.engine.said.connect(self._write)
        self.engine.ended.connect(self._ended)
        self.engine.failed.connect(self._failed)
        self.line.returnPressed.connect(self.ask)
        self.send.clicked.connect(self.ask)
        self.halt.clicked.connect(self.engine.stop)
        self._allow(asking=False, stopping=False)
        self.statusBar().showMessage("The model is being opened …")

    def ask(self) -> None:
        """Say what is in the line."""
        text = self.line.text().strip()
        if not text or not self.send.isEnabled():
            return
        self.line.clear()
        self._allow(asking=False, stopping=True)
        self._write(("\n\n" if self.talk.toPlainText() else "") + f"› {text}\n\n", -1, "")
        self.statusBar().showMessage("Answering …")
        self.engine.ask(text)

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802 — Qt calls it so
        """Free the model."""
        self.engine.close()
        event.accept()

    def _lay_out(self) -> None:
        asking, left, right, whole = QHBoxLayout(), QVBoxLayout(), QWidget(), QWidget()
        for widget in (self.line, self.send, self.halt):
            asking.addWidget(widget)
        left.addWidget(self.talk)
        left.addLayout(asking)
        right.setLayout(self.sliders)
        right.setFixedWidth(300)
        both = QHBoxLayout(whole)
        both.addLayout(left)
        both.addWidget(right)
        self.setCentralWidget(whole)

    def _opened(self) -> None:
        chat = self.engine.chat
        if chat is None:
            return
        for at, dimension in enumerate(chat.dimensions):
            slider, label = QSlider(Qt.Orientation.Horizontal), QLabel(dimension.name)
            slider.setRange(-STEPS, STEPS)
            slider.setValue(round(chat.weights[dimension.name] * STEPS))
            slider.setToolTip(dimension.description)
            slider.setAccessibleName(dimension.name)
            slider.valueChanged.connect(lambda value, name=dimension.name: self._weigh(name, value / STEPS))
            label.setStyleSheet(f"color: {_hue(at).name()}; font-weight: bold")
            label.setBuddy(slider)
            self.sliders.addRow(label, slider)
        self.statusBar().showMessage(f"{chat.model_name} is ready")
        self._allow(asking=True, stopping=False)

    def _weigh(self, name: str, value: float) -> None:
        if self.engine.chat:
            self.engine.chat.weights[name] = value
            self.statusBar().showMessage(f"{name} {value:+.1f}, from the next token on")

    def _write(self, text: str, dimension: int, why: str) -> None:
        style = QTextCharFormat()
        if dimension >= 0:
            style.setForeground(_hue(dimension))
            style.setFontUnderline(True)
            style.setToolTip(why)
        self.talk.moveCursor(QTextCursor.MoveOperation.End)
        self.talk.textCursor().insertText(text, style)
        self.talk.ensureCursorVisible()

    def _ended(self, reason: str) -> None:
        self.statusBar().showMessage("Stopped" if reason == "cancelled" else "Ready")
        self._allow(asking=True, stopping=False)

    def _failed(self, problem: str) -> None:
        self.statusBar().showMessage(problem)
        self._allow(asking=self.engine.chat is not None, stopping=False)

    def _allow(self, *, asking: bool, stopping: bool) -> None:
        self.send.setEnabled(asking)
        self.halt.setEnabled(stopping)
        self.line.setFocus()


def _hue(dimension: int) -> QColor:
    light = QApplication.palette().base().color().lightness() > 127
    return QColor.fromHsl(HUES[dimension % len(HUES)], 160, 85 if light else 185)


def main() -> int:
    application = QApplication(sys.argv)
    window = Window(*application.arguments()[1:2])
    window.show()
    return application.exec()


if __name__ == "__main__":
    sys.exit(main())
