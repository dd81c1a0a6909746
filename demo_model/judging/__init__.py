"""How good is the model at the agent's tasks? Step by step, and whole repairs with real pytest."""
