"""What programs and notebooks call: models, radii and options in any form, and results that show themselves."""
