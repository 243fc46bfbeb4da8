"""What the subcommands of `qverify` do; `qverify.cli` only declares them.

options.py      the options that commands share, and what a user gave (imports nothing heavy)
problem.py      files and options -> network, samples, radii, solver: everything checked before work begins
verify.py, sweep.py, discrepancy.py, solvers.py, inspect.py    one command each
progress.py     how far a run is, on stderr
output.py       the two streams: results on stdout, everything else on stderr
"""
