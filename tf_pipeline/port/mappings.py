"""Look up the class that PyTorch's ``transformers`` lists for an architecture and a kind of head.

The lists are read from the source of ``transformers.models.auto.modeling_auto`` as text, because the module itself
cannot be imported where there is no PyTorch, and they are needed there too: to know which graph to look for.
"""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def mapping(name: str) -> dict[str, tuple[str, ...]]:
    """Names of PyTorch's classes by ``model_type``.

    Args:
        name: such as ``"MODEL_FOR_MASKED_LM_MAPPING_NAMES"``.
    """
    for target, value in _assignments().items():
        if target == name:
            own = [item for item in value.args[0].elts if not isinstance(item, ast.Starred)]  # not another mapping's
            pairs = [ast.literal_eval(item) for item in own]
            return {key: (names,) if isinstance(names, str) else tuple(names) for key, names in pairs}
    return {}


@cache
def _assignments() -> dict[str, ast.Call]:
    """Every ``NAME = OrderedDict([...])`` of the module."""
    package = Path(find_spec("transformers").origin).parent
    tree = ast.parse((package / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8"))
    return {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.targets[0].id.endswith("_NAMES")
    }
