"""Hugging Face tokenizers that hand out TensorFlow tensors again."""

from tf_pipeline.tokenization.auto import AutoTokenizer, with_tensorflow

__all__ = ["AutoTokenizer", "with_tensorflow"]
