"""Questions that ask `verify` many times, or ask for more than a verdict."""
