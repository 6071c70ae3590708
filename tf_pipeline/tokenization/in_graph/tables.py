"""Look-up tables that are plain tensors: a value for every code point, sparse integer matrices, and tries made of them.

They hold no state and no resource, so a SavedModel stores each once as a constant however many signatures use it.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

CODE_POINTS = 0x110000
END = CODE_POINTS  # closes every section of a text; not a character
BYTE = CODE_POINTS + 0x100  # BYTE + b stands for one byte of a character that a vocabulary lacks
ADDED = BYTE + 0x100  # ADDED + id stands for a token that was found in the text as a whole
_PAGE = 256


class CodePointTable:
    """An int32 for every code point; one value stands for ``END`` and for added tokens.

    Args:
        values: ``[0x110000]`` integers.
        otherwise: the value of any number that is not a code point.
    """

    def __init__(self, values: np.ndarray, otherwise: int = 0):
        values = np.concatenate([values, np.full(_PAGE, otherwise)]).astype(np.int32)
        numbers: dict[bytes, int] = {}  # most pages are equal
        index = [numbers.setdefault(page.tobytes(), len(numbers)) for page in values.reshape(-1, _PAGE)]
        self._pages = tf.constant(np.frombuffer(b"".join(numbers), np.int32))
        self._index = tf.constant(np.array(index, np.int32) * _PAGE)

    def __call__(self, codes: tf.Tensor) -> tf.Tensor:
        """Values of ``codes``, int32 of the same shape."""
        codes = tf.minimum(codes, END)
        page = tf.gather(self._index, tf.bitwise.right_shift(codes, 8))
        return tf.gather(self._pages, page + tf.bitwise.bitwise_and(codes, _PAGE - 1))


class SparseMatrix:
    """A sparse matrix of non-negative int32 packed by row displacement: every look-up is three gathers.

    Rows are shifted until no two entries share a slot (Tarjan and Yao, "Storing a sparse table", 1979).

    Args:
        rows: ``[n]`` row of every entry.
        columns: ``[n]`` column of every entry.
        values: ``[n]`` its value.
        num_rows: number of rows.
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, num_rows: int):
        rows, columns = np.asarray(rows, np.int64), np.asarray(columns, np.int64)
        base, size = _displacements(rows, columns, num_rows)
        slots = base[rows] + columns
        owner, stored = np.full(size, -1, np.int32), np.full(size, -1, np.int32)
        owner[slots], stored[slots] = rows, values
        self._base = tf.constant(base.astype(np.int32))
        self._owner, self._values, self._size = tf.constant(owner), tf.constant(stored), size

    def __call__(self, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
        """Values at pairs of rows and columns, -1 where there is no entry. Rows have to exist; columns need not."""
        slots = tf.gather(self._base, rows) + columns
        inside = tf.clip_by_value(slots, 0, self._size - 1)
        is_stored = (tf.gather(self._owner, inside) == rows) & (slots == inside)
        return tf.where(is_stored, tf.gather(self._values, inside), -1)


def _displacements(rows: np.ndarray, columns: np.ndarray, num_rows: int) -> tuple[np.ndarray, int]:
    """A shift for every row under which no two entries meet, and the number of slots."""
    base = np.zeros(num_rows, np.int64)
    if not len(rows):
        return base, 1
    order = np.lexsort((columns, rows))
    rows, columns = rows[order], columns[order]
    present, first, degree = np.unique(rows, return_index=True, return_counts=True)
    free, rng = np.ones(2 * len(rows) + int(columns.max()) + 64, bool), np.random.default_rng(0)
    for count in np.unique(degree)[::-1]:
        chosen = degree == count
        entries = columns[first[chosen][:, None] + np.arange(count)]
        if count > 1:
            base[present[chosen]], free = _place(entries, free, rng)
        else:  # anything free will do
            base[present[chosen]] = np.flatnonzero(free)[: chosen.sum()] - entries[:, 0]
    return base, len(free)


def _place(entries: np.ndarray, free: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw shifts for rows of equally many entries until all have a place of their own; more room where it is short."""
    shifts, left, rounds = np.zeros(len(entries), np.int64), np.arange(len(entries)), 0
    owner = np.full(len(free), len(entries))
    while len(left):
        rounds += 1
        if rounds % 64 == 0:
            more = max(len(free) // 8, 2 * int(entries[:, -1].max()))
            free = np.concatenate([free, np.ones(more, bool)])
            owner = np.full(len(free), len(entries))
        drawn = rng.choice(np.flatnonzero(free), len(left)) - entries[left, 0]
        slots = drawn[:, None] + entries[left]
        fits = slots[:, -1] < len(free)
        fits[fits] = free[slots[fits]].all(axis=1)
        # Of the rows that want a slot in this round the first gets it, if it gets all of its slots.
        candidates = np.flatnonzero(fits)
        wanted = slots[candidates]
        np.minimum.at(owner, wanted, np.broadcast_to(candidates[:, None], wanted.shape))
        won = candidates[(owner[wanted] == candidates[:, None]).all(axis=1)]
        owner[wanted] = len(entries)
        shifts[left[won]], free[slots[won]] = drawn[won], False
        left = np.delete(left, won)
    return shifts, free


class Trie:
    """Strings of code points, with an id each, found at any position of a text.

    Args:
        roots: one set of strings or several, as ``(string, id)``: a search names the set that it starts in. Ids are
            not negative, strings not empty; of equal strings in one set the last counts.
    """

    def __init__(self, *roots: Iterable[tuple[str, int]]):
        roots = [list(root) for root in roots]
        alphabet = sorted({ord(c) for root in roots for word, _ in root for c in word})
        classes = np.zeros(CODE_POINTS, np.int64)
        classes[alphabet] = np.arange(1, len(alphabet) + 1)
        self._classes = CodePointTable(classes)
        edges, accepts = _grow(roots)
        self.empty = not edges
        rows, columns, values = np.array(edges or [(0, 0, 0)], np.int64).T
        self._edges = SparseMatrix(rows, classes[columns], values, len(accepts))
        self._accepts = tf.constant(np.array(accepts, np.int32))

    def step(self, nodes: tf.Tensor, symbols: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Go from nodes along symbols: the next nodes and the ids of strings that end there, -1 where there is none."""
        following = self._edges(nodes, symbols)
        return following, tf.where(following < 0, -1, tf.gather(self._accepts, tf.maximum(following, 0)))

    def longest_matches(
        self, codes: tf.Tensor, roots: tf.Tensor | int = 0, positions: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The longest string at every position.

        Args:
            codes: ``[n]`` code points, the last being ``END``.
            roots: ``[m]`` or scalar, the set to search at every position.
            positions: ``[m]`` where to search; everywhere by default.

        Returns:
            Two int32 ``[m]``: the number of characters, 0 for no match, and the id, -1 for no match.
        """
        symbols = self._classes(codes)
        positions = tf.range(tf.size(codes)) if positions is None else positions
        lengths, ids = tf.zeros_like(positions), tf.fill(tf.shape(positions), -1)

        def body(depth, search, at, nodes, lengths, ids):
            # END matches nothing, so no search leaves its section.
            nodes, ended = self.step(nodes, tf.gather(symbols, at))
            ends = tf.where(ended >= 0)[:, 0]
            accepted = tf.gather(search, ends)[:, None]
            lengths = tf.tensor_scatter_nd_update(lengths, accepted, tf.fill(tf.shape(ends), depth))
            ids = tf.tensor_scatter_nd_update(ids, accepted, tf.gather(ended, ends))
            alive = tf.where(nodes >= 0)[:, 0]
            search, at, nodes = (tf.gather(x, alive) for x in (search, at + 1, nodes))
            return depth + 1, search, at, nodes, lengths, ids

        search = tf.range(tf.size(positions))
        state = (tf.constant(1), search, positions, tf.broadcast_to(roots, tf.shape(positions)), lengths, ids)
        return tuple(tf.while_loop(lambda _, search, *__: tf.size(search) > 0, body, state, flexible(state))[4:])

    def all_matches(self, codes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Every string at every position.

        Args:
            codes: ``[n]`` code points, the last being ``END``.

        Returns:
            Three int32 ``[matches]``: the place right after a match, its number of characters, and its id.
        """
        symbols = self._classes(codes)

        def body(depth, at, nodes, ends, lengths, ids):
            nodes, ended = self.step(nodes, tf.gather(symbols, at))
            accepted = tf.where(ended >= 0)[:, 0]
            ends = tf.concat([ends, tf.gather(at + 1, accepted)], 0)
            lengths = tf.concat([lengths, tf.fill(tf.shape(accepted), depth)], 0)
            ids = tf.concat([ids, tf.gather(ended, accepted)], 0)
            alive = tf.where(nodes >= 0)[:, 0]
            return depth + 1, tf.gather(at + 1, alive), tf.gather(nodes, alive), ends, lengths, ids

        empty = tf.zeros([0], tf.int32)
        state = (tf.constant(1), tf.range(tf.size(codes)), tf.zeros_like(codes), empty, empty, empty)
        return tuple(tf.while_loop(lambda _, at, *__: tf.size(at) > 0, body, state, flexible(state))[3:])


def _grow(roots: Sequence[list[tuple[str, int]]]) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Edges ``(node, code point, node)``, and the id that ends at every node."""
    edges, accepts = {}, [-1] * len(roots)
    for start, root in enumerate(roots):
        for word, accepted in root:
            node = start
            for character in map(ord, word):
                following = edges.get((node, character))
                if following is None:
                    following = edges[node, character] = len(accepts)
                    accepts.append(-1)
                node = following
            accepts[node] = accepted
    return [(node, character, following) for (node, character), following in edges.items()], accepts


def flexible(state: Sequence[tf.Tensor]) -> tuple[tf.TensorShape, ...]:
    """Shape invariants of a loop whose tensors change their first dimension."""
    return tuple(tf.TensorShape([None, *t.shape[1:]] if t.shape.rank else []) for t in state)
