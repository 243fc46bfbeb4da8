"""Sound bounds on a quantised family: IBP (`interval`), BP (`backward`), rounding in one place (`rounding`)."""
