"""Whether a chat would work on this machine, line by line, each with a remedy: the facts behind `padlite doctor`.

Every check stands alone: what a broken installation raises becomes a finding. Knows nothing of how findings are shown.
"""

from padlite.diagnosis.examination import diagnose, would_chat
from padlite.diagnosis.finding import Fact, Finding, Status

__all__ = ["Fact", "Finding", "Status", "diagnose", "would_chat"]
