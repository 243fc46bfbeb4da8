"""What tests share: networks and members, models and runs on disk, commands and processes, and oracles."""
