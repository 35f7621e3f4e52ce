"""Tests here share a module that knows the pages and runs their blocks."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
