"""Verdicts on samples, from cheap to exact."""
