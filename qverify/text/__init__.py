"""Words for people: foreign text made printable and short."""
