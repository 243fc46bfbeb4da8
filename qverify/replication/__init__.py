"""A float network beside the integer file made of it: matched layer by layer, compared, and bounded in difference."""
