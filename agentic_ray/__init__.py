"""The public facade: every public name is imported from here. Nothing is implemented here."""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
