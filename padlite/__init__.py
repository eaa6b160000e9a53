"""padlite: personalized chat that is steered while it decodes, offline.

Importing this package loads no engine. ONNX Runtime's telemetry is switched off before anything can import it: it
would otherwise write a device id and start an upload thread.
"""

import logging
import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.1.0"
