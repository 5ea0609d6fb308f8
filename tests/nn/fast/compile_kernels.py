"""Compile the Triton kernels for a GPU of some compute capability; print the bytes of shared memory of each."""

import sys
import warnings

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from liquid_train.nn.gpu import cfc_steps, ltc_steps
from liquid_train.nn.gpu.kernels import cfc, ltc

warnings.simplefilter("ignore")
NUMBERS = {"T": "i32", "B": "i32", "H": "i32", "K": "i32", "span": "fp32"}


def compile_for(target, kernel, warps, **constants):
    signature = {
        name: "constexpr" if name in constants else NUMBERS.get(name, "*fp32") for name in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", target, 32), options={"num_warps": warps})
    print(made.metadata.shared)


target = int(sys.argv[1])
for batch_size in (64, 1024):
    rows, chunk = cfc_steps._tile(batch_size)
    tile = {"ROWS": rows, "COLUMNS": cfc_steps._COLUMNS, "CHUNK": chunk, "N": 4, "BACKBONE": True}
    heads = {
        "MODE": cfc.GATED,
        "ACTIVATION": cfc.SIGMOID,
        "KEEPS_ARGUMENT": False,
        "KEEP": True,
        "SPANS": True,
    }
    compile_for(target, cfc.forward, cfc_steps._WARPS, **tile, **heads)
    compile_for(target, cfc.backward, cfc_steps._WARPS, **tile)
for kernel in (ltc.forward, ltc.backward):
    compile_for(target, kernel, 4, UNFOLDS=6, SPANS=True, **ltc_steps._TILE)
