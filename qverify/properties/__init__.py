"""Properties of outputs over boxes of inputs, stated as what violates them, and their decision."""
