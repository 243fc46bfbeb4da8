"""Elementwise activations other than Relu: their values, and what bounds and programs need of them."""
