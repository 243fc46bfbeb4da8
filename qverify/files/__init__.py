"""Files and their names: strict readers of TOML and JSON, what a user hands in, and where things lie."""
