"""The Hugging Face hub: what a model repository holds, and its files in the hub's own cache, whole and checked.

Needs the extra `padlite[hub]`, which is imported when a `Hub` is made, not before. Knows neither bundles nor terminals.
"""

from padlite.hub.client import Hub
from padlite.hub.record import DEFAULT_REVISION, UNKNOWN_LICENSE, HubFile, Repository

__all__ = ["DEFAULT_REVISION", "UNKNOWN_LICENSE", "Hub", "HubFile", "Repository"]
