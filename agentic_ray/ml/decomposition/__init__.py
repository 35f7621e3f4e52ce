"""Components of matrices."""
