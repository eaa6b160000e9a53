"""Everything here needs the train extra."""

import pytest

pytest.importorskip("torch", reason="needs the train extra: pip install 'padlite[train]'")
pytest.importorskip("tokenizers", reason="needs the train extra: pip install 'padlite[train]'")
pytest.importorskip("sklearn", reason="needs the train extra: pip install 'padlite[train]'")
