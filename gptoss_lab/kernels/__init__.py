"""Fast weight holders, for large models read in place: MXFP4 and bfloat16 rows multiply as they lie.

`holders` stand in for `Linear` and `PackedStack`, `seams` and `steps` for parts of attention and experts;
`attach` puts them onto a model. `forms` chooses how they multiply, the best that is here:

    avx512   numba, MXFP4 with activations of 22 bits, sixteen rows abreast           `avx512`
    avx2     numba, MXFP4 with activations of 16 bits, and instructions of our own    `avx2`
    numba    numba, plain loops, activations in float32                               `plain`
    torch    torch alone: rows unpacked a tile at a time; needs no numba              `forms`

On a card, where load(kernels="fast") asks for it, `triton` stands in for a `PackedStack`, with a kernel of
the same call; it was never run on one.

Against float64 each is within a relative error of 1e-4 (`tests/test_kernels.py`). numba is the extra `fast`;
it is imported when a kernel is first wanted, and compiles it then.
"""

from .attach import quicken
from .forms import FORMS, available, compile_seconds, form
from .holders import FastLinear, FastStack

__all__ = ["FORMS", "FastLinear", "FastStack", "available", "compile_seconds", "form", "quicken"]
