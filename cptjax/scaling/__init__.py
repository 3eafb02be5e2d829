"""Scaling laws of pretraining and continued pretraining: the formulas, how they are fitted, what to distrust, what to buy."""
