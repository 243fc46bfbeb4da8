#!/bin/sh
# VNN-COMP: answer an instance.   run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT
# RESULTS gets sat, unsat, unknown or timeout in its first line, and after sat what satisfies the query. TIMEOUT is in
# seconds, of which a tenth, at most 5, is left for what comes before and after.
set -eu
[ "${1:-}" = v1 ] && [ $# -eq 6 ] || {
  echo "usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT" >&2
  exit 2
}
onnx=$3 query=$4 results=$5 timeout=$6
limit=$(awk -v t="$timeout" 'BEGIN { spare = t / 10; print t - (spare < 5 ? spare : 5) }')
# Version 2.0 names its network; in 1.0 any name will do.
name=$(gzip -cdf "$query" | sed -n 's/.*(declare-network[[:space:]]*\([^[:space:]()]*\).*/\1/p' | head -n 1)
if "${QVERIFY_PYTHON:-python3}" -m qverify vnnlib verify "$query" --network "${name:-f}=$onnx" --timeout "$limit" \
  > "$results.partial"; then
  sed '1s/^timed-out$/timeout/' "$results.partial" > "$results"
  rm -f "$results.partial"
else
  status=$?
  rm -f "$results.partial"
  echo error > "$results"
  exit "$status"
fi
