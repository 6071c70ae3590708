"""Hugging Face tokenizers as TensorFlow graphs: strings go in, ids come out, and TF Serving needs nothing else."""

from tf_pipeline.tokenization.in_graph.decoders import InGraphDecoder, compile_decoder
from tf_pipeline.tokenization.in_graph.errors import UnsupportedTokenizer
from tf_pipeline.tokenization.in_graph.tokenizer import InGraphTokenizer, compile_tokenizer
from tf_pipeline.tokenization.in_graph.verification import VerificationReport, verify

__all__ = [
    "InGraphDecoder",
    "InGraphTokenizer",
    "UnsupportedTokenizer",
    "VerificationReport",
    "compile_decoder",
    "compile_tokenizer",
    "verify",
]
