"""Is the TensorFlow model the PyTorch model? The engine that answers with numbers.

Needs ``torch``, which nothing else in this package does.
"""

from tf_pipeline.judging.check import GROUPS, Check, Finding, Skip
from tf_pipeline.parity.compare import compare
from tf_pipeline.parity.comparison import SAMPLE_TEXTS
from tf_pipeline.parity.outputs import compare_outputs
from tf_pipeline.parity.report import Report

__all__ = ["GROUPS", "SAMPLE_TEXTS", "Check", "Finding", "Report", "Skip", "compare", "compare_outputs"]
