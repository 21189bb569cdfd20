"""The training loop of all steps, its schedules, and what a network learns from."""
