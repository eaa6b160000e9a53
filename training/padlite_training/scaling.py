"""The factor by which a fitted dimension moves the base by so much, or an error where there is next to nothing.

Shapes: N states, k candidates. Knows neither heads nor where the states come from.
"""

import numpy as np

from padlite.dimensions.fit import mean_shift, scale_for_shift
from padlite.errors import PadliteError
from padlite.seams import FloatArray

LARGEST_SCALE = 64.0
"""As far as `scale_for_shift` looks."""


def scale_for(base: FloatArray, features: FloatArray, shift: float, *, name: str) -> float:
    """Return the factor of *features* (N, k) at which they shift *base* (N, k) by *shift* nats, in the mean of states.

    Raises PadliteError, which names the dimension *name*, if `LARGEST_SCALE` isn't enough: so little is noise, and
    would be called a preference if it were blown up.
    """
    largest = mean_shift(base, np.float32(LARGEST_SCALE) * features)
    if not largest >= shift:  # also what is no number
        raise PadliteError(
            f"the dimension {name} was hardly learned: even {LARGEST_SCALE:g} times as strong it shifts the base by "
            f"{largest:.2g} nats per token instead of {shift:g}",
            remedy="give more, or more different, answers in this dimension",
        )
    return scale_for_shift(base, features, shift=shift)
