"""The two streams, progress, and signals."""
