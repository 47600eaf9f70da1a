"""The CUDA kernels of bitlens: libbitlens_cuda.so, beside this file."""
