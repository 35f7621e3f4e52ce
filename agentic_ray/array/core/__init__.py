"""Expressions, their optimisation, their lowering to tasks, and their evaluation."""
