"""Text to tokens and back: the three encodings that are shipped, labels for figures, and streaming text."""

from .tokens import TextStream, decode_stream, encode, encoding, labels

__all__ = ["TextStream", "decode_stream", "encode", "encoding", "labels"]
