"""From a profile to a conversation: finds the files it names, opens the models, checks that they belong together.

The one place where bundle, engine, reward head, template and session meet. Knows no terminal and no store.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from padlite import settings
from padlite.backends import llama_devices
from padlite.backends.llama import LlamaModel, LlamaTokenizer, physical_cores
from padlite.backends.llama_files import open_tokenizer
from padlite.backends.llama_grammar import GrammarConstraint
from padlite.backends.onnx import OnnxHead
from padlite.backends.onnx_lm import OnnxLm
from padlite.backends.onnx_reward import has_text_map, open_reward
from padlite.backends.preflight import kind_of
from padlite.backends.reward_tokenizer import RewardTokenizer
from padlite.bridge import BridgedReward
from padlite.bundle import Bundle, find_bundle, verify
from padlite.contrast import ContrastReward
from padlite.errors import BackendError, ProfileError, RewardMismatchError, UsageError
from padlite.options import DecodingOptions, EngineOptions
from padlite.own_heads import own_head
from padlite.profile import Profile, check_dimensions
from padlite.reaction import TextReader, features_of
from padlite.reward_lm import PROMPT, LmReward
from padlite.rewards import joined
from padlite.seams import BaseModel, Dimension, RewardModel
from padlite.session import Session
from padlite.settings import Paths
from padlite.streams import ManySequences, Streams
from padlite.template import ChatTemplate
from padlite.text_map import TextMap


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
    """Loaded models, the conversation on them, and the *profile* that it follows, its text turned into weights."""

    session: Session
    models: "OpenModels"
    profile: Profile

    @property
    def source(self) -> Source:
        """The files that are open."""
        return self.models.source

    @property
    def base(self) -> LlamaModel:
        """The base model."""
        return self.models.base

    @property
    def reward(self) -> OnnxHead | OnnxLm | None:
        """The reward model, or None."""
        return self.models.reward

    @property
    def template(self) -> ChatTemplate:
        """The base model's chat template."""
        return self.models.template

    @property
    def model_name(self) -> str:
        """The bundle's name, or the file name of a bare GGUF."""
        return self.source.name


def find_source(profile: Profile, *, paths: Paths | None = None) -> Source:
    """Return the files that *profile* means; a GGUF file comes with the head that the person made for it, if any.

    Raises NotFoundError for an unknown bundle.
    """
    if profile.base is not None:
        reward = profile.reward or own_head(profile.base, paths or settings.paths())
        return Source(name=profile.base.name, base=profile.base, reward=reward, bundle=None, defaults=DecodingOptions())
    bundle = find_bundle(profile.model, paths)
    defaults = DecodingOptions(strength=bundle.strength, candidates=bundle.candidates)
    return Source(
        name=bundle.name, base=bundle.base, reward=profile.reward or bundle.reward, bundle=bundle, defaults=defaults
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModels:
    """Loaded models that belong together, for any number of conversations, of which *parallel* are answered at a time.

    Each of these has room for *sentences* of its profile beside its own context. *reward_tokenizer* is there if the
    reward LM's tokenizer differs from the base's.
    """

    source: Source
    base: LlamaModel
    reward: OnnxHead | OnnxLm | None
    template: ChatTemplate
    parallel: int
    sentences: int
    reward_tokenizer: RewardTokenizer | None = None
    readings: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def read(self, profile: Profile) -> Profile:
        """Return *profile* with the weights that its preference text stands for; a text is read once.

        Reading steps the base model, so it belongs on the thread that runs it. Raises ProfileError if the reward model
        has no map from text to weights, ContextFullError if there is no room for the text.
        """
        text_map = required_text_map(profile, self.reward)
        if text_map is None or not isinstance(self.reward, OnnxHead):
            return profile
        text = profile.preference_text
        if text not in self.readings:
            with self.base.spare_sequence() as sequence:
                features = features_of(self.reward, text_map.names)
                reader = TextReader(self.base, self.base.tokenizer, self.template, features, sequence=sequence)
                self.readings[text] = text_map.weights(reader.reaction(text))
        return replace(profile, text_weights=self.readings[text])

    def has_read(self, profile: Profile) -> bool:
        """Tell whether `read` would step the base model no more."""
        return not profile.preference_text or profile.preference_text in self.readings

    def _lm_reward(self, reward: OnnxLm, profile: Profile) -> RewardModel:
        """Return *reward* for one conversation, with a cache of its own."""
        info, own, template = reward.info, self.reward_tokenizer, self.template
        if info.chat_template and own is None:
            template = _template(info.chat_template, self.base.tokenizer)
        elif info.chat_template and own is not None:
            template = ChatTemplate(info.chat_template, beginning=own.beginning_text, end=own.end_text)
        make = LmReward if own is None else functools.partial(BridgedReward, own=own)
        return make(
            reward.with_own_cache(), self.base.tokenizer, template=template, dimension=info.dimension,
            preference=profile.reward_text or info.preference, prompt=info.prompt or PROMPT,
            base_context_length=self.base.context_length,
        )  # fmt: skip

    @property
    def sequences(self) -> range:
        """The sequences of the base model that conversations may use; the last one is the probe's."""
        return range(_sequences(self.parallel, self.sentences) - 1)

    def session(self, profile: Profile, *, base: ManySequences | None = None) -> Session:
        """Return a new conversation that follows *profile*, as `read` returned it; *base* may stand for the base model.

        Raises ProfileError for a dimension that the reward model lacks, UsageError for more sentences than there is
        room for.
        """
        _require_told(profile, self.reward)
        check_dimensions(profile, self.reward.dimensions if self.reward else ())
        if len(profile.sentences) > self.sentences:
            raise UsageError(
                f"the profile has {len(profile.sentences)} sentences, and the model was opened with room for "
                f"{self.sentences}",
                remedy="open the model with this profile",
            )
        rewards: list[RewardModel] = []
        if isinstance(self.reward, OnnxLm):
            rewards.append(self._lm_reward(self.reward, profile))
        elif self.reward is not None:
            rewards.append(self.reward)
        own = base or self.base
        stepped: BaseModel = own
        if profile.sentences:
            stepped = streams = Streams(own)
            rewards.append(_contrast(profile, streams, self.base, self.template))
        return Session(
            base=stepped,
            tokenizer=self.base.tokenizer,
            template=self.template,
            reward=joined(rewards),
            weights=profile.weights,
            options=profile.decoding_options(self.source.defaults),
            system=profile.system_text(),
            overflow=profile.overflow,
            constrain=lambda grammar: GrammarConstraint(self.base, grammar),
        )


@contextlib.contextmanager
def open_models(
    profile: Profile,
    *,
    paths: Paths | None = None,
    parallel: int = 1,
    sentences: int | None = None,
) -> Iterator[OpenModels]:
    """Open what *profile* names; everything is closed and freed afterwards.

    *parallel* conversations may be answered at a time, each with room for *sentences* (default: the profile's own).
    Raises NotFoundError for missing files, BackendError for broken ones, a model without a chat template, or a device
    that can't be had,
    RewardMismatchError for a head of another base, ProfileError for a dimension that the reward model lacks.
    """
    source = find_source(profile, paths=paths)
    if source.bundle is not None:
        verify(source.bundle, everything=False)
    room = len(profile.sentences) if sentences is None else sentences
    llama_devices.allowed(EngineOptions(device=profile.device, gpu_layers=profile.gpu_layers))  # before anything opens
    with contextlib.ExitStack() as stack:
        reward: OnnxHead | OnnxLm | None = None
        if source.reward is not None:
            reward = _open_reward(source.reward, profile)
            stack.callback(reward.close)
        _require_told(profile, reward)
        check_dimensions(profile, reward.dimensions if reward else ())
        options = _engine_options(
            profile, source, parallel=parallel, sentences=room, hidden_states=isinstance(reward, OnnxHead)
        )
        base = stack.enter_context(LlamaModel.open(source.base, options))
        template = chat_template(base)
        own_tokenizer: RewardTokenizer | None = None
        if isinstance(reward, OnnxLm) and not _shares_tokenizer(reward, base.tokenizer):
            own_tokenizer = reward.own_tokenizer()
        elif reward is not None:
            require_same_base(reward, base)
            if isinstance(reward, OnnxLm):  # both evaluate the same token at the same time
                base.leave_threads(reward.threads)
        models = OpenModels(
            source=source, base=base, reward=reward, template=template, parallel=parallel, sentences=room,
            reward_tokenizer=own_tokenizer,
        )  # fmt: skip
        models.read(profile)
        yield models


@contextlib.contextmanager
def open_chat(profile: Profile, *, paths: Paths | None = None) -> Iterator[OpenChat]:
    """Open what *profile* names and yield the conversation; raises what `open_models` raises."""
    with open_models(profile, paths=paths) as models:
        profile = models.read(profile)
        yield OpenChat(session=models.session(profile), models=models, profile=profile)


def required_text_map(profile: Profile, reward: OnnxHead | OnnxLm | None) -> TextMap | None:
    """Return the map that *profile* needs for its preference text, None if it has no such text.

    Raises ProfileError if *reward* has no map.
    """
    if not profile.preference_text:
        return None
    text_map = reward.text_map if isinstance(reward, OnnxHead) else None
    if text_map is None:
        where = f"{profile.source}: " if profile.source else ""
        raise ProfileError(
            f"{where}this model can't turn the text under [preferences.text] into weights: its reward model has no "
            "text map",
            remedy="padlite profile set --unset preferences.text.about, and weigh dimensions yourself; "
            "docs/training.md says how a head gets a text map",
        )
    return text_map


def reads_text(source: Source) -> bool:
    """Tell whether the reward model that *source* names can turn text into weights."""
    return source.reward is not None and has_text_map(source.reward)


def _contrast(profile: Profile, streams: Streams, base: LlamaModel, template: ChatTemplate) -> ContrastReward:
    """Return the contrast of the profile's sentences, on the sequences after the conversation's own."""
    sentences = [
        (Dimension(name=name, description=f"sentence: {sentence.text}"), sentence.text)
        for name, sentence in profile.sentences.items()
    ]
    return ContrastReward(
        streams, base.tokenizer, template, sentences, sequences=range(1, len(sentences) + 1)
    )  # fmt: skip


def _open_reward(path: Path, profile: Profile) -> OnnxHead | OnnxLm:
    threads = profile.threads or physical_cores()
    return open_reward(path, device=profile.device, context_length=profile.context_length, threads=threads)


def _require_told(profile: Profile, reward: OnnxHead | OnnxLm | None) -> None:
    """Raise ProfileError if the profile's `reward_text` is needed and lacking, or there but of no use."""
    where = f"{profile.source}: " if profile.source else ""
    if isinstance(reward, OnnxLm):
        if not (profile.reward_text or reward.info.preference):
            raise ProfileError(
                f"{where}the reward LM must be told what to prefer",
                remedy="write it to the profile: reward_text = 'humor', or whatever it was trained on",
            )
    elif profile.reward_text:
        raise ProfileError(
            f"{where}reward_text is for a reward LM, which this model doesn't have", remedy="remove reward_text"
        )


def check_reward_lm(profile: Profile) -> None:
    """Raise what `open_models` would if the reward LM that *profile* means, if any, doesn't fit it or its base.

    Of the base only the vocabulary is read. What came in one bundle was tried together when that was made.
    """
    source = find_source(profile)
    together = source.bundle is not None and profile.reward is None
    if source.reward is None or together or kind_of(source.reward) != "lm":
        return
    with open_reward(source.reward, device="cpu") as reward, open_tokenizer(source.base) as tokenizer:
        _require_told(profile, reward)
        if isinstance(reward, OnnxLm) and not _shares_tokenizer(reward, tokenizer):
            reward.own_tokenizer()


def _shares_tokenizer(reward: OnnxLm, tokenizer: LlamaTokenizer) -> bool:
    return reward.reads_tokens_of(vocabulary_size=tokenizer.vocabulary_size, tokenizer_sha256=tokenizer.sha256)


def chat_template(base: LlamaModel) -> ChatTemplate:
    """Return the chat template of *base*; BackendError if it has none, as a guessed one makes a model talk nonsense."""
    source = base.chat_template
    if source is None:
        raise BackendError(
            f"{base.path.name} has no chat template, so padlite can't know how to talk to it",
            remedy="use an instruction-tuned (chat) GGUF",
        )
    return _template(source, base.tokenizer)


def _template(source: str, tokenizer: LlamaTokenizer) -> ChatTemplate:
    return ChatTemplate(source, beginning=tokenizer.named_text("bos"), end=tokenizer.named_text("eos"))


def require_same_base(reward: OnnxHead | OnnxLm, base: LlamaModel) -> None:
    """Raise RewardMismatchError unless *reward* was made for *base*."""
    if isinstance(reward, OnnxLm):
        if not _shares_tokenizer(reward, base.tokenizer):
            raise RewardMismatchError(
                "the reward LM has another tokenizer than this base",
                remedy="export it for this one: padlite export reward … --base BASE.gguf",
            )
        return
    reward.require_base(
        vocabulary_size=base.vocabulary_size,
        hidden_size=base.hidden_size,
        tokenizer_sha256=base.tokenizer.sha256,
        probe_hidden=base.unit_hidden_state,
    )


def _engine_options(
    profile: Profile, source: Source, *, parallel: int, sentences: int, hidden_states: bool
) -> EngineOptions:
    context_length = profile.context_length or (source.bundle.context_length if source.bundle else 0)
    return EngineOptions(
        context_length=context_length,
        threads=profile.threads,
        gpu_layers=profile.gpu_layers,
        device=profile.device,
        hidden_states=hidden_states,
        contexts=parallel * (1 + sentences),
        sequences=_sequences(parallel, sentences),
    )


def _sequences(parallel: int, sentences: int) -> int:
    """Return how many sequences are needed: those being answered, two prompts kept for later, the head's probe."""
    return parallel * (1 + sentences) + 3
