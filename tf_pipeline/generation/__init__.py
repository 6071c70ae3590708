"""Texts from models that predict tokens: the loop, the ways to choose a token, and the options of ``transformers``."""
