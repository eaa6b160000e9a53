"""A chat being held: the session, who records it, and the profile it follows; and one turn of it from start to end.

What happens to the words of an answer is up to the caller. Knows no terminal, no commands and no prompt.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from padlite.cli.interrupts import Interrupts
from padlite.cli.recorder import Recorder, restored
from padlite.errors import PadliteError, UsageError
from padlite.options import DecodingOptions
from padlite.profile import Profile, check_dimensions
from padlite.session import Answer, Dropped, Event, Finished, FinishReason, Session
from padlite.settings import Paths
from padlite.store import SessionStore


class Listener(Protocol):
    """Gets what happens in a turn as it happens."""

    def text(self, text: str) -> None:
        """The answer goes on with *text*."""
        ...

    def dropped(self, turns: int) -> None:
        """The oldest *turns* no longer fit and were left out."""
        ...


@dataclass(slots=True, kw_only=True)
class Conversation:
    """What one chat consists of; *store* is None where nothing can be read from it.

    *read* gives a profile the weights that its preference text stands for (`OpenModels.read`).
    """

    session: Session
    recorder: Recorder
    store: SessionStore | None
    profile: Profile
    model_name: str
    defaults: DecodingOptions
    paths: Paths
    interrupts: Interrupts
    read: Callable[[Profile], Profile] = field(default=lambda profile: profile)

    def turn(self, events: Iterator[Event], listener: Listener) -> Answer:
        """Let an answer be decoded, tell *listener*, and record it; a turn that ends before its first token never was.

        Raises what the session raises.
        """
        before, last = self.session.messages, self.session.last
        progress = _Progress()
        with self.interrupts.stopping(self.session.cancel):
            try:
                for event in events:
                    self._follow(event, listener, progress)
            finally:
                if isinstance(events, Generator):
                    events.close()  # lets the session keep what was said so far
                if progress.said:
                    self.recorder.record(self.session.messages)
                else:
                    self.session.restore(before)
                    self.session.last = last
        if progress.answer is None:
            raise PadliteError("the answer ended without a reason", remedy="/regen")
        return progress.answer

    def _follow(self, event: Event, listener: Listener, progress: "_Progress") -> None:
        if isinstance(event, Dropped):
            progress.dropped += event.turns
            listener.dropped(event.turns)
            return
        if isinstance(event, Finished):
            progress.answer = event.answer
            listener.text(event.answer.text[progress.heard :])
            if event.answer.finish_reason is not FinishReason.CANCELLED:
                self._begin(progress)
            return
        listener.text(event.text)
        progress.heard += len(event.text)
        if not progress.said:
            self._begin(progress)
            self.recorder.record_beginning(self.session.messages)

    def _begin(self, progress: "_Progress") -> None:
        """From here on the turn counts, and so does what was left out for it."""
        if not progress.said and progress.dropped:
            self.recorder.dropped(progress.dropped)
        progress.said = True

    def use_profile(self, profile: Profile) -> None:
        """Follow *profile* from now on; the conversation stays. Raises UsageError if it is for another model."""
        if not profile.has_model_of(self.profile):
            raise UsageError(
                f"this profile is for another model than {self.model_name}",
                remedy=f"leave and start: padlite chat --profile {profile.source or profile.name}",
            )
        opened = {name: sentence.text for name, sentence in self.profile.sentences.items()}
        if {name: sentence.text for name, sentence in profile.sentences.items()} != opened:
            raise UsageError(
                "this profile has other sentences, which a chat takes only when it starts",
                remedy=f"leave and start: padlite chat --profile {profile.source or profile.name}",
            )
        check_dimensions(profile, [each for each in self.session.dimensions if each.name not in opened])
        profile = self.read(profile)
        for dimension in self.session.dimensions:
            self.session.set_weight(dimension.name, profile.weights.get(dimension.name, 0.0))
        self.session.system = profile.system_text()
        self.session.options = profile.decoding_options(self.defaults)
        self.session.overflow = profile.overflow
        self.profile = profile

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Set some weights, all of them or (on an error) none."""
        before = self.session.weights
        try:
            for name, value in weights.items():
                self.session.set_weight(name, value)
        except PadliteError:
            for name, value in before.items():
                self.session.set_weight(name, value)
            raise

    def load(self, name: str) -> int:
        """Go on with the kept session *name*; return how many messages it holds. Raises NotFoundError or StoreError."""
        if self.store is None:
            raise UsageError("there are no kept conversations here", remedy="start padlite chat without --no-save")
        messages = self.store.messages(name)
        self.session.restore(restored(messages))
        self.recorder.resume(name, messages)
        return len(messages)

    def begin_anew(self) -> None:
        """Forget what was said in this chat; what is kept on disk stays, and what follows is another conversation."""
        self.session.clear()
        self.recorder.start_new()

    def undo(self) -> bool:
        """Take back the last message and its answer, on disk too; false if there is none."""
        if not self.session.undo():
            return False
        self.recorder.record(self.session.messages)
        return True


@dataclass(slots=True)
class _Progress:
    """How far a turn has come: characters *heard*, turns *dropped* for it, and whether it counts yet."""

    heard: int = 0
    dropped: int = 0
    said: bool = False
    answer: Answer | None = None
