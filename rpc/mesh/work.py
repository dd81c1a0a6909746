"""How much work do rows make for an expert, in reads of its weights?

Attention services choose pools by it, and the router places experts by it: both must mean the same.
"""

ROWS_PER_EXPERT_READ = 8
"""Rows that cost an expert's weights as much arithmetic time as reading them once does."""
