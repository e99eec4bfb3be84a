"""Proxy-tuning: adapters of a small model steer a large frozen one, inside one engine (Liu et al. 2024)."""
