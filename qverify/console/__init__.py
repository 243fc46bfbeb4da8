"""The two streams, how far a run is, and how it is told to end."""
