"""In which units the reactions of a base model to texts are fitted (`padlite.text_map.Reaction`). Knows no fit."""

import numpy as np

from padlite.seams import FloatArray

_SMALLEST_SPREAD = 0.3  # of the mean spread over all places
_HIDDEN_SIZE = 3.0  # length of a standardized Δh; the signature's is about the root of m


def reaction_scales(signatures: FloatArray, hidden: FloatArray) -> tuple[float, FloatArray]:
    """Return the unit of *signatures* (T, m), one number, and the units of *hidden* (T, d), one for each place.

    Places of the hidden state that hardly differ between texts hold noise: they are not blown up.
    """
    size = float(np.sqrt((signatures**2).mean())) or 1.0
    spread = np.maximum(hidden.std(0), _SMALLEST_SPREAD * (float(hidden.std()) or 1.0))
    spread *= np.sqrt(hidden.shape[1]) / _HIDDEN_SIZE
    return size, spread
