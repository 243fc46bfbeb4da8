"""Questions, and their answers on disk, which can be added to and read back."""
