"""CRC-32 as zip files and seals have it: by isal where it is installed, else by zlib, and of two parts together.

isal takes a quarter of zlib's time or less. Both give the interpreter free while they look at many bytes.

Source of the arithmetic: zlib's crc32.c, `multmodp`, `x2nmodp` and `crc32_combine_` (polynomials over GF(2), the lowest
power in the highest bit).
"""

from __future__ import annotations

import functools

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["combined", "crc32"]

_POLYNOMIAL = 0xEDB88320
_ONE, _X_TO_THE_8 = 1 << 31, 1 << 23


def combined(first: int, second: int, second_bytes: int) -> int:
    """Return the CRC-32 of two parts, one behind the other, from that of each and the size of the second.

    >>> combined(crc32(b"bona "), crc32(b"fide"), 4) == crc32(b"bona fide")
    True
    """
    return _times(_power_of_256(second_bytes), first) ^ second


@functools.lru_cache(maxsize=4096)  # tensors have few sizes
def _power_of_256(exponent: int) -> int:
    result, square = _ONE, _X_TO_THE_8
    while exponent:
        if exponent & 1:
            result = _times(square, result)
        square = _times(square, square)
        exponent >>= 1
    return result


def _times(one: int, other: int) -> int:
    product, bit = 0, _ONE
    while one:
        if one & bit:
            product ^= other
            one ^= bit
        bit >>= 1
        other = other >> 1 ^ _POLYNOMIAL if other & 1 else other >> 1
    return product
