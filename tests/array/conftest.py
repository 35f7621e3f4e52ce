"""Settings of the property tests."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

import strategies  # noqa: F401  (registers the profile)

settings.load_profile("array")
