"""Corpora, the miniatures' tokenizer, and the training loop."""
