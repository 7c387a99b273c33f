"""A reference with a tokenizer of its own: its losses carried over to the corpus's tokens."""
