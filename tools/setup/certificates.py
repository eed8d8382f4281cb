"""Trusting whom the system trusts.

uv and some builds of pip carry certificates of their own. Behind a proxy whose certificate only the system knows,
they would refuse every download, though curl, apt-get and Go get through.
"""

from __future__ import annotations

import os
from pathlib import Path

BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def settings() -> dict[str, str]:
    """Variables that make uv and pip use the system's certificates; empty if it has none, or the user chose."""
    if not BUNDLE.is_file() or "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ:
        return {}
    # Older versions of uv know only the second name of the setting.
    wanted = {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true", "PIP_CERT": str(BUNDLE)}
    return {name: value for name, value in wanted.items() if name not in os.environ}
