"""Hugging Face tokenizers that hand out TensorFlow tensors again."""

from tf_pipeline.tokenization.auto import AutoTokenizer, pad_with_end, with_tensorflow

__all__ = ["AutoTokenizer", "pad_with_end", "with_tensorflow"]
