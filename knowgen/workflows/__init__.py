"""What a command or a Python call does: resolve, plan, execute, compare, merge and reproduce runs."""
