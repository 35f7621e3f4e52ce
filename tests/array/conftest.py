"""Settings of the property tests."""

from __future__ import annotations

import strategies  # noqa: F401  (registers the profile)
from hypothesis import settings

settings.load_profile("array")
