"""The one error of compiling a tokenizer."""


class UnsupportedTokenizer(ValueError):
    """A part of a tokenizer cannot be compiled exactly; the message names it and what is supported."""
