"""Read and write checkpoints whose tensors are not the parameters: renamed, joined, split or turned.

A :class:`~tf_pipeline.port.graph.Layout` says how, in the operators that the graph itself is written in. It is captured
from PyTorch's own loading and saving by :mod:`tf_pipeline.port.torch_layout`. Nothing here needs PyTorch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_pipeline.checkpoint import Slot, WeightWriter
from tf_pipeline.port.graph import COMPUTE, Conversion, Graph, Layout, Tensor, references
from tf_pipeline.port.interpret import Interpreter


def fits(layout: Layout, reader) -> bool:
    """Whether a checkpoint is stored in a layout: the same names, and the same shapes where they matter."""
    if set(layout.stored) != set(reader):
        return False
    taken = [name for node in layout.loading.nodes for name in _sources(node.references())]
    return all(list(reader.shape(name)) == layout.stored[name] for name in taken)


def _sources(names: Iterable[str]) -> Iterator[str]:
    """The given tensors among the references of nodes."""
    yield from (name.removeprefix("p.") for name in names if name.startswith("p."))


class Converter:
    """Computes the tensors that a conversion makes.

    Args:
        conversion: how.
        read: returns a given tensor by name.
        dtype_of: returns the dtype of a given tensor by name.
    """

    def __init__(self, conversion: Conversion, read: Callable[[str], np.ndarray], dtype_of: Callable[[str], np.dtype]):
        self.outputs, self._read, self._dtype_of = conversion.outputs, read, dtype_of
        self._nodes = {node.name: node for node in conversion.nodes}
        given = {name for node in conversion.nodes for name in _sources(node.references())}
        self._graph = Graph("", "", "", {}, {}, {}, {}, {}, dict(self.outputs), conversion.nodes)
        self._graph.parameters = {name: Tensor(COMPUTE, []) for name in given}

    def source(self, name: str) -> str | None:
        """The given tensor that a made one simply is; ``None`` if it is computed."""
        reference = self.outputs[name][1:]
        return reference[2:] if reference.startswith("p.") else None

    def sources(self, name: str) -> list[str]:
        """The given tensors that one is made of."""
        if (source := self.source(name)) is not None:
            return [source]
        needed = self._graph.needed((name,))
        return list(dict.fromkeys(_sources(key for node in needed for key in node.references())))

    def shape(self, name: str) -> list[int]:
        """Shape of a tensor that is computed."""
        return self._nodes[next(references(self.outputs[name]))].shape or []

    def dtype(self, name: str) -> np.dtype:
        """Dtype of a tensor that is made: the widest of those it is made of."""
        return np.result_type(*map(self._dtype_of, self.sources(name)))

    def compute(self, names: list[str]) -> dict[str, np.ndarray]:
        """Tensors by name, those that have something in common together."""
        if not names:
            return {}
        dtype = np.result_type(*map(self.dtype, names))
        results = Interpreter(self._graph, dtype.name).run(tuple(names), {}, self._read, {}.__getitem__)
        return {name: value.numpy() for name, value in results.items()}


class ConvertedReader(Mapping):
    """The parameters of a model, and the tensors without a parameter, read from a checkpoint of another layout.

    Args:
        reader: the checkpoint's own tensors.
        layout: how they are stored.
    """

    def __init__(self, reader, layout: Layout):
        self._reader = reader
        outputs = layout.loading.outputs | {name: f"%p.{name}" for name in layout.unused}
        self._converter = Converter(Conversion(outputs, layout.loading.nodes), reader.__getitem__, reader.dtype)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        source = self._converter.source(key)
        return tuple(self._converter.shape(key)) if source is None else self._reader.shape(source)

    def dtype(self, key: str) -> np.dtype:
        """Dtype of one tensor."""
        return self._converter.dtype(key)

    def release(self, key: str) -> None:
        """Forget a tensor that has been read."""
        if (source := self._converter.source(key)) is not None:
            self._reader.release(source)

    def __getitem__(self, key: str) -> np.ndarray:
        source = self._converter.source(key)
        return self._converter.compute([key])[key] if source is None else self._reader[source]

    def __contains__(self, key: object) -> bool:
        return key in self._converter.outputs

    def __iter__(self) -> Iterator[str]:
        return iter(self._converter.outputs)

    def __len__(self) -> int:
        return len(self._converter.outputs)


class ConvertedWriter(WeightWriter):
    """The tensors that PyTorch would write, made of a model's parameters.

    Args:
        slots: the parameters by key.
        tied: other keys of them.
        saving: how they are stored.
    """

    def __init__(self, slots: Mapping[str, Slot], tied: Mapping[str, str], saving: Conversion):
        super().__init__({key: slots[tied.get(key, key)] for key in (*slots, *tied)})
        self._converter = Converter(saving, lambda key: self.slots[key].read(), self._dtype)

    def _dtype(self, key: str) -> np.dtype:
        return np.dtype(self.slots[key].variable.value.dtype.as_numpy_dtype)

    def sizes(self) -> dict[str, int]:
        """Bytes of each tensor by name."""
        return {name: self._size(name) for name in self._converter.outputs}

    def _size(self, name: str) -> int:
        source = self._converter.source(name)
        shape = self._converter.shape(name) if source is None else self.slots[source].parameter.shape
        return int(np.prod(shape)) * self._converter.dtype(name).itemsize

    def read(self, names: Iterable[str]) -> dict[str, Any]:
        """Tensors by name."""
        names = list(names)
        computed = self._converter.compute([name for name in names if self._converter.source(name) is None])
        return {
            name: computed[name] if name in computed else self.slots[self._converter.source(name)].read()
            for name in names
        }
