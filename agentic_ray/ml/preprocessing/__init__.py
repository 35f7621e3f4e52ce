"""Features made ready for models."""
