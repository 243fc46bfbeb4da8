"""Tables, plots and the page, from runs read back."""
