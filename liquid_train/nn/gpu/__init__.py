"""The loops over steps as one Triton kernel each: no step waits for a launch."""
