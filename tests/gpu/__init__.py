"""What is tested and measured on an NVIDIA GPU; the README here tells how."""
