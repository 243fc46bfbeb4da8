"""The tests of qverify, in folders that mirror the package; `support` has what they share, `fuzz` a fuzzer.

Only `tests`, `tests.support` and `tests.fuzz` are packages. The other folders are none, so that `tests/onnx` is
never taken for `onnx`, wherever pytest is started.
"""
