"""How a head is trained from pairs: every number that a person may want to change."""

import math
from dataclasses import dataclass

from padlite.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTraining:
    """One training.

    *rank* r of the head; *sharpness* γ of the pair loss; *kl* how much staying near the base counts, *likelihood* how
    much making the chosen answer itself likelier does (per token, in nats); φ is kept within ±*clamp*. The head is the
    mean of its weights over about *averaged_steps*; training stops when *patience* epochs brought nothing on held-out
    groups. *text_rate* and *text_decay* are the second stage's, the map from preference text to weights. Calibration:
    at weight 1 and strength 1 each dimension shifts the base by *mean_shift_nats* per token.
    """

    rank: int = 32
    sharpness: float = 1.0
    kl: float = 0.5
    likelihood: float = 2.0
    clamp: float = 6.0
    rate: float = 1e-3
    weight_decay: float = 0.3
    text_rate: float = 3e-3
    text_decay: float = 1.0
    batch_pairs: int = 32
    averaged_steps: int = 200
    epochs: int = 40
    patience: int = 4
    mean_shift_nats: float = 0.3
    seed: int = 7

    def __post_init__(self) -> None:
        least = {"rank": 1, "batch_pairs": 1, "averaged_steps": 1, "epochs": 1, "patience": 0, "seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UsageError(f"{name} must be at least {low}", remedy=f"set {name} to {low} or more")
        for name in ("sharpness", "clamp", "rate", "text_rate", "mean_shift_nats"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} must be a number above 0", remedy=f"leave {name} out to use the default")
        for name in ("kl", "likelihood", "weight_decay", "text_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} must be 0 or more", remedy=f"leave {name} out to use the default")
