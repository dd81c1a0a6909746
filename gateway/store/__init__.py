"""Answers and conversations that are kept, so that later requests can refer to them."""
