"""Compile the Triton kernels for a GPU of some compute capability; print the bytes of shared memory of each."""

import sys
import warnings
from itertools import product

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from liquid_train.nn.gpu import cfc_steps, ltc_steps
from liquid_train.nn.gpu.kernels import cfc, ltc

warnings.simplefilter("ignore")
NUMBERS = {"T": "i32", "B": "i32", "H": "i32", "K": "i32", "before": "i32", "span": "fp32"}


def compile_for(target, kernel, warps, **constants):
    signature = {
        name: "constexpr" if name in constants else NUMBERS.get(name, "*fp32") for name in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", target, 32), options={"num_warps": warps})
    print(made.metadata.shared)
    return made.asm["ptx"]


target = int(sys.argv[1])
few, many = (
    dict(zip(("ROWS", "CHUNK"), cfc_steps._tile(size), strict=True), COLUMNS=cfc_steps._COLUMNS)
    for size in (64, 1024)
)
kept = {"KEEP": True, "KEEPS_ARGUMENT": False}
for tile, (mode, heads), backbone in product((few, many), ((cfc.GATED, 3), (cfc.PURE, 1)), (True, False)):
    for precision in ("ieee", "tf32"):
        network = {"N": heads, "BACKBONE": backbone, "PRECISION": precision, **tile}
        forward = {"MODE": mode, "ACTIVATION": cfc.SIGMOID, "SPANS": False, **kept, **network}
        programs = (
            compile_for(target, cfc.forward, cfc_steps._WARPS, **forward),
            compile_for(target, cfc.backward, cfc_steps._WARPS, **network),
        )
        # Devices from capability 8.0 on have units for products of TF32.
        for program in programs:
            assert ("mma.sync" in program and ".tf32" in program) == (precision == "tf32" and target >= 80)
for activation in (cfc.RELU, cfc.SILU, cfc.GELU):
    rest = {"MODE": cfc.NO_GATE, "N": 4, "BACKBONE": True, "ACTIVATION": activation, "SPANS": True}
    arguments = {"KEEP": False, "KEEPS_ARGUMENT": activation in (cfc.SILU, cfc.GELU)}
    compile_for(target, cfc.forward, cfc_steps._WARPS, **rest, **arguments, **few, PRECISION="ieee")
for spans in (False, True):
    for kernel in (ltc.forward, ltc.backward):
        compile_for(target, kernel, 4, UNFOLDS=6, SPANS=spans, **ltc_steps._TILE)
