"""Representational similarity analysis: dissimilarity matrices, comparison, ceilings, tests. Arrays in, numbers out."""
