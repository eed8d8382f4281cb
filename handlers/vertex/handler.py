"""The file that Hugging Face's inference containers load from the model's folder (bundle.py puts it there).

One of their servers has the folder in its module path and the other has not.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from handlers.vertex.endpoint import EndpointHandler

__all__ = ["EndpointHandler"]
