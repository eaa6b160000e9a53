"""From a profile to a conversation: finds the files it names, opens the models, checks that they belong together.

The one place where bundle, engine, reward head, template and session meet. Knows no terminal and no store.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from padlite.backends.llama import LlamaModel
from padlite.backends.onnx import OnnxHead
from padlite.bundle import Bundle, find_bundle, verify
from padlite.contrast import ContrastReward
from padlite.errors import BackendError
from padlite.options import DecodingOptions, EngineOptions
from padlite.profile import Profile, check_dimensions
from padlite.rewards import joined
from padlite.seams import BaseModel, Dimension, RewardModel
from padlite.session import Session
from padlite.settings import Paths
from padlite.streams import Streams
from padlite.template import ChatTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The files that a profile means, and the decoding defaults that come with them."""

    name: str
    base: Path
    reward: Path | None
    bundle: Bundle | None
    defaults: DecodingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenChat:
    """Loaded models, and the conversation on them."""

    session: Session
    source: Source
    base: LlamaModel
    reward: OnnxHead | None
    template: ChatTemplate

    @property
    def model_name(self) -> str:
        """The bundle's name, or the file name of a bare GGUF."""
        return self.source.name


def find_source(profile: Profile, *, paths: Paths | None = None) -> Source:
    """Return the files that *profile* means. Raises NotFoundError for an unknown bundle."""
    if profile.base is not None:
        return Source(
            name=profile.base.name, base=profile.base, reward=profile.reward, bundle=None, defaults=DecodingOptions()
        )
    bundle = find_bundle(profile.model, paths)
    defaults = DecodingOptions(strength=bundle.strength, candidates=bundle.candidates)
    return Source(
        name=bundle.name, base=bundle.base, reward=profile.reward or bundle.reward, bundle=bundle, defaults=defaults
    )


@contextlib.contextmanager
def open_chat(profile: Profile, *, device: str = "auto", paths: Paths | None = None) -> Iterator[OpenChat]:
    """Open what *profile* names and yield the conversation; everything is closed and freed afterwards.

    Raises NotFoundError for missing files, BackendError for broken ones or a model without a chat template,
    RewardMismatchError for a head of another base, ProfileError for a dimension that the reward model lacks.
    """
    source = find_source(profile, paths=paths)
    if source.bundle is not None:
        verify(source.bundle, everything=False)
    with contextlib.ExitStack() as stack:
        reward = stack.enter_context(OnnxHead.open(source.reward, device=device)) if source.reward else None
        check_dimensions(profile, reward.dimensions if reward else ())
        base = stack.enter_context(LlamaModel.open(source.base, _engine_options(profile, source, reward)))
        template = chat_template(base)
        rewards: list[RewardModel] = []
        if reward is not None:
            require_same_base(reward, base)
            rewards.append(reward)
        stepped: BaseModel = base
        if profile.sentences:
            stepped = streams = Streams(base)
            rewards.append(_contrast(profile, streams, base, template))
        session = Session(
            base=stepped,
            tokenizer=base.tokenizer,
            template=template,
            reward=joined(rewards),
            weights=profile.weights,
            options=profile.decoding_options(source.defaults),
            system=profile.system_text(),
            overflow=profile.overflow,
        )
        yield OpenChat(session=session, source=source, base=base, reward=reward, template=template)


def _contrast(profile: Profile, streams: Streams, base: LlamaModel, template: ChatTemplate) -> ContrastReward:
    """Return the contrast of the profile's sentences, on the sequences after the conversation's own."""
    sentences = [
        (Dimension(name=name, description=f"sentence: {sentence.text}"), sentence.text)
        for name, sentence in profile.sentences.items()
    ]
    return ContrastReward(
        streams, base.tokenizer, template, sentences, sequences=range(1, len(sentences) + 1)
    )  # fmt: skip


def chat_template(base: LlamaModel) -> ChatTemplate:
    """Return the chat template of *base*; BackendError if it has none, as a guessed one makes a model talk nonsense."""
    source = base.chat_template
    if source is None:
        raise BackendError(
            f"{base.path.name} has no chat template, so padlite can't know how to talk to it",
            remedy="use an instruction-tuned (chat) GGUF",
        )
    tokenizer = base.tokenizer
    return ChatTemplate(source, beginning=tokenizer.named_text("bos"), end=tokenizer.named_text("eos"))


def require_same_base(reward: OnnxHead, base: LlamaModel) -> None:
    """Raise RewardMismatchError unless *reward* was made for *base*."""
    reward.require_base(
        vocabulary_size=base.vocabulary_size,
        hidden_size=base.hidden_size,
        tokenizer_sha256=base.tokenizer.sha256,
        probe_hidden=base.unit_hidden_state,
    )


def _engine_options(profile: Profile, source: Source, reward: OnnxHead | None) -> EngineOptions:
    context_length = profile.context_length or (source.bundle.context_length if source.bundle else 0)
    return EngineOptions(
        context_length=context_length,
        threads=profile.threads,
        gpu_layers=profile.gpu_layers,
        hidden_states=reward is not None,
        contexts=1 + len(profile.sentences),
        sequences=max(4, 2 + len(profile.sentences)),  # one stays free for the head's probe
    )
