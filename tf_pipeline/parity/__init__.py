"""Is the TensorFlow model the PyTorch model? The engine that answers with numbers.

Needs ``torch``, which nothing else in this package does.
"""

from tf_pipeline.parity.compare import compare
from tf_pipeline.parity.report import Check, Report

__all__ = ["Check", "Report", "compare"]
