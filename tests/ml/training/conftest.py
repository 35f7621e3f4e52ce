"""Tests here share loops, and what plain PyTorch makes of them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
