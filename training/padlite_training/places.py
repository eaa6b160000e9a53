"""Where a training keeps its files. Knows nothing of what is in them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things go: the public text, the bundle, and the work folder."""

    data: Path
    out: Path
    work: Path

    @property
    def corpus(self) -> Path:
        """Folder of the corpus."""
        return self.work / "corpus"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return self.work / "tokenizer.json"

    def checkpoint(self, phase: str) -> Path:
        """The checkpoint of a training phase."""
        return self.work / f"{phase}.pt"

    @property
    def gguf(self) -> Path:
        """The base model of the bundle."""
        return self.out / "base.gguf"

    @property
    def reward(self) -> Path:
        """The reward head of the bundle."""
        return self.out / "reward.onnx"

    def rivals(self, name: str) -> Path:
        """What `padlite eval` said on one held-out set."""
        return self.work / f"rivals-{name}.json"

    def facts(self, name: str) -> Path:
        """What a stage measured."""
        return self.work / f"{name}.json"
