"""How a model works on a task: turns, calls, what it sees, when it has finished."""
