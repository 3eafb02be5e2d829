"""What attention's TPU kernels cost, found by compiling them ahead of time on a machine that has no TPU."""
