"""Words for people: what comes from elsewhere made printable and short."""
