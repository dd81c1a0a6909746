"""How much work do rows cause an expert, in units of reading its weights?

Attention services choose pools by it and the router places experts by it, so it is shared.
"""

ROWS_PER_EXPERT_READ = 8
"""Number of rows that take as long to compute as reading an expert's weights once."""
