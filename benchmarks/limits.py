"""Limits of a processor: multiply-adds per second in registers, and bytes per second that a loop reads from memory.

    python benchmarks/limits.py

A program in C, which the system's compiler makes for this processor, does nothing else, on as many threads as the
engines that are measured. No engine can compute faster. One can read faster: sums in TensorFlow do. Where there is no
compiler, nothing is known.
"""

import contextlib
import ctypes
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 5
# Repetitions of a loop of multiply-adds, and the floats of the array that is read: 512 MB.
LOOPS, FLOATS = 2_000_000, 2**27

# Twelve chains of multiply-adds hide each other's latency, and fit into the registers of every processor.
_SOURCE = r"""
#if defined(__AVX512F__)
#include <immintrin.h>
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define CHAINS 12
typedef float vector __attribute__((vector_size(BYTES)));

long float32_operations(void) { return CHAINS * 2 * BYTES / sizeof(float); }

float float32(long loops, float factor, float term) {
  vector chain[CHAINS], sum = {0};
  vector f = sum + factor, t = sum + term;
  for (int i = 0; i < CHAINS; i++) chain[i] = t + (float)i;
  for (long n = 0; n < loops; n++)
    for (int i = 0; i < CHAINS; i++) chain[i] = chain[i] * f + t;
  for (int i = 0; i < CHAINS; i++) sum += chain[i];
  return sum[0] + sum[1];
}

/* Processors with AMX multiply matrices by another unit, which this does not use. */
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
long bfloat16_operations(void) { return CHAINS * 2 * 32; }

float bfloat16(long loops, float factor, float term) {
  __m512 chain[CHAINS], sum = _mm512_setzero_ps();
  __m512bh f = _mm512_cvtne2ps_pbh(_mm512_set1_ps(factor), _mm512_set1_ps(term));
  for (int i = 0; i < CHAINS; i++) chain[i] = _mm512_set1_ps(i);
  for (long n = 0; n < loops; n++)
    for (int i = 0; i < CHAINS; i++) chain[i] = _mm512_dpbf16_ps(chain[i], f, f);
  for (int i = 0; i < CHAINS; i++) sum = _mm512_add_ps(sum, chain[i]);
  return _mm512_reduce_add_ps(sum);
}
#else
long bfloat16_operations(void) { return 0; }
float bfloat16(long loops, float factor, float term) { return 0; }
#endif

float read_floats(const float *values, long count) {
  const vector *vectors = (const vector *)values;
  vector sums[8] = {{0}};
  for (long n = 0; n < count * (long)sizeof(float) / BYTES; n += 8)
    for (int i = 0; i < 8; i++) sums[i] += vectors[n + i];
  for (int i = 1; i < 8; i++) sums[0] += sums[i];
  return sums[0][0];
}
"""


@dataclass(frozen=True)
class Limits:
    """Limits of a number of threads.

    Attributes:
        operations: additions and multiplications per second by dtype; a dtype that is missing was not measured.
        bytes_read: per second, from memory, by a plain loop.
    """

    operations: dict[str, float]
    bytes_read: float

    def seconds(self, dtype: str, operations: float, bytes_read: float) -> float | None:
        """Least time of a computation, or ``None`` if the limit of its dtype is not known.

        Args:
            dtype: ``"float32"`` or ``"bfloat16"``.
            operations: additions and multiplications.
            bytes_read: bytes that have to come from memory.
        """
        if dtype not in self.operations:
            return None
        return max(operations / self.operations[dtype], bytes_read / self.bytes_read)

    def __str__(self) -> str:
        rates = [f"{rate / 1e9:.0f} GFLOP/s in {dtype}" for dtype, rate in self.operations.items()]
        return f"{', '.join(rates)}; {self.bytes_read / 1e9:.1f} GB/s read by a loop"


def measure_limits(threads: int) -> Limits | None:
    """The fastest of a few rounds, or ``None`` without a C compiler."""
    with _compiled() as library:
        if library is None:
            return None
        operations = {}
        for dtype in ("float32", "bfloat16"):
            loop, each = getattr(library, dtype), getattr(library, f"{dtype}_operations")()
            loop.argtypes, loop.restype = (ctypes.c_long, ctypes.c_float, ctypes.c_float), ctypes.c_float
            if each:
                seconds = _fastest(threads, lambda _, loop=loop: loop(LOOPS, 0.5, 1.0))
                operations[dtype] = threads * LOOPS * each / seconds
        share = FLOATS // threads // 1024 * 1024
        array = (ctypes.c_float * (share * threads + 16))()
        start = -(-ctypes.addressof(array) // 64) * 64
        ctypes.memset(start, 0, 4 * share * threads)
        library.read_floats.argtypes = (ctypes.c_void_p, ctypes.c_long)
        seconds = _fastest(threads, lambda index: library.read_floats(start + 4 * share * index, share))
        return Limits(operations, 4 * share * threads / seconds)


@contextlib.contextmanager
def _compiled() -> Iterator[ctypes.CDLL | None]:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "limits.c"), Path(folder, "limits.so")
        source.write_text(_SOURCE)
        command = ["cc", "-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", "-o", target, source]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            yield None
        else:
            yield ctypes.CDLL(str(target))


def _fastest(threads: int, work: Callable[[int], object]) -> float:
    """Least seconds in which as many threads do a piece of work each; foreign code runs without Python's lock."""
    return min(_together(threads, work) for _ in range(ROUNDS))


def _together(threads: int, work: Callable[[int], object]) -> float:
    others = [threading.Thread(target=work, args=(index,)) for index in range(1, threads)]
    start = time.perf_counter()
    for thread in others:
        thread.start()
    work(0)
    for thread in others:
        thread.join()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(measure_limits(os.cpu_count() or 1) or "There is no C compiler to measure with.")
