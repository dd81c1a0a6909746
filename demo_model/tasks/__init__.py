"""What is the model taught of the agent's loop? One generator per family: see families.py."""
