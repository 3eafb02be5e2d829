"""Measurements of speed: ratios against a named peer, or against what the machine can do, taken in one run."""
