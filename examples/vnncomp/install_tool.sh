#!/bin/sh
# VNN-COMP: install the tool.   install_tool.sh v1
# The folder of this script is examples/vnncomp of a checkout; QVERIFY_PYTHON is the Python to install for.
set -eu
[ "${1:-}" = v1 ] || { echo "usage: install_tool.sh v1" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
"${QVERIFY_PYTHON:-python3}" -m pip install "$here/../..[vnnlib]"
