"""Is the class of a quantised file the same on every runtime? (mathematics.md, section 18)."""
