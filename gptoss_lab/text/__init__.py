"""Text to tokens and back: the three encodings that are shipped, labels for figures, and streaming text."""
