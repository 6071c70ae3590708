"""Is the TensorFlow model the PyTorch model? The engine that answers with numbers.

Needs ``torch``, which nothing else in this package does.
"""

from tf_pipeline.parity.compare import SAMPLE_TEXTS, compare
from tf_pipeline.parity.report import Check, Report

__all__ = ["SAMPLE_TEXTS", "Check", "Report", "compare"]
