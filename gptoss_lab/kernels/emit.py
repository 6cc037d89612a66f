"""LLVM's language in a few words, for kernels that say their instructions by name (`avx2`, `avx512`)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.np.arrayobj import make_array

BYTE, WORD, WHOLE, FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()


def arrays(context: Any, builder: Any, signature: Any, args: Any, count: int) -> tuple[list[Any], list[Any]]:
    """The addresses of the first `count` arguments, which are arrays laid out densely; and their shapes."""
    found = [make_array(kind)(context, builder, arg) for kind, arg in zip(signature.args[:count], args)]
    return [array.data for array in found], [array.shape for array in found]


def each(vector: ir.VectorType, value: float) -> ir.Constant:
    """A vector of one constant."""
    return ir.Constant(vector, [value] * vector.count)


def read(builder: Any, base: Any, offset: Any, kind: ir.Type) -> Any:
    """What lies `offset` items after an address, which need not be aligned."""
    return builder.load(builder.bitcast(builder.gep(base, [offset]), kind.as_pointer()), align=1)


def spread(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    """One number in all places of a vector."""
    nothing = ir.Constant(vector, ir.Undefined)
    places = ir.Constant(ir.VectorType(WHOLE, vector.count), [0] * vector.count)
    return builder.shuffle_vector(builder.insert_element(nothing, value, WHOLE(0)), nothing, places)


def named(builder: Any, name: str, result: ir.Type, *kinds: ir.Type) -> Any:
    """An instruction by LLVM's name for it, to be called."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)
