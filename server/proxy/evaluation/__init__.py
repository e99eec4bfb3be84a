"""The published comparison of proxy-tuning, for any two models and any tasks (Liu et al. 2024, arXiv:2401.08565)."""
