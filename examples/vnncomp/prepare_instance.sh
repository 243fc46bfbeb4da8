#!/bin/sh
# VNN-COMP: get ready for an instance.   prepare_instance.sh v1 CATEGORY ONNX VNNLIB
# Nothing is computed here. Fails if a file is missing or the query is not one that qverify answers.
set -eu
[ "${1:-}" = v1 ] && [ $# -eq 4 ] || { echo "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2; exit 2; }
for file in "$3" "$4"; do
  [ -r "$file" ] || { echo "prepare_instance.sh: $file cannot be read" >&2; exit 2; }
done
"${QVERIFY_PYTHON:-python3}" -c "import sys; from qverify.vnnlib.reading import read_query; read_query(sys.argv[1])" "$4"
