"""One short TensorFlow function for each ATen operator, in a module for each kind.

A rule takes the operator's arguments as its ATen schema has them: tensors are TensorFlow tensors, sizes are Python
integers or, where an axis is open, scalar int32 tensors. It computes in the dtype of its inputs; the interpreter casts
the result to the dtype that PyTorch's type promotion gave the node. A rule that declares ``out_dtype`` is told that
dtype, one that declares ``training`` whether dropout is active, one that declares ``pieces`` how many results there
are, and one that declares ``attentions`` gets a list to add attention probabilities to.
"""

from tf_pipeline.port.rules import attention, create, elementwise, index, linear, neural, reduce, shape, symbolic
from tf_pipeline.port.rules.registry import RULES, Rule, find_rule

__all__ = [
    "RULES",
    "Rule",
    "attention",
    "create",
    "elementwise",
    "find_rule",
    "index",
    "linear",
    "neural",
    "reduce",
    "shape",
    "symbolic",
]
