"""The model: config, checkpoint, maths, tokenizer, chat format, reference. No gRPC.

Importing this package, `config` or `chat` never imports torch, so that the
gateway and the router stay small.
"""
