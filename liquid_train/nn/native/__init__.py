"""C++ kernels for the CPU, built on first use where a compiler is there."""
