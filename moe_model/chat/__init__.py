"""Text in, text out: tokenizer, chat template and the parser of M2's output. No torch."""
