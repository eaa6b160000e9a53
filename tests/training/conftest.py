"""Everything here needs the train extra."""

import pytest

pytest.importorskip("torch", reason="needs the train extra: pip install 'padlite[train,eval]'")
pytest.importorskip("tokenizers", reason="needs the train extra: pip install 'padlite[train,eval]'")
pytest.importorskip("sklearn", reason="needs the train extra: pip install 'padlite[train,eval]'")
pytest.importorskip("matplotlib", reason="needs the eval extra: pip install 'padlite[train,eval]'")
