"""Radii, the quantised family they make of a network, and its members."""
