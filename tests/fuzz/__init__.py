"""A fuzzer of qverify's answers: random small networks, members of their families, and real integer files.

    python -m tests.fuzz --verdicts 10000 --seed 1

It asks the product by its public functions only, and judges the answers by code of its own: exact rationals, families
as the README defines them, and files that onnxruntime.quantization writes. `models` makes networks, `exact` runs ONNX
graphs in rationals, `plans` reads a graph as layers of sums, `families` has the radii, `members` looks for the worst
member, `files` has the integer files and `integers` their saturating kernels, `judge` compares, `run` goes round.
"""
