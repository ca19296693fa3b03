#!/bin/sh
# Make or update the environment in the folder $1 with the versions of constraints.txt.
# From the environment: PYTHON, EXTRAS, TORCH_INDEX (see the Makefile).
set -eu
venv=$1
say() { echo "setup: $*"; }

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "needs Python 3.11 or newer, found $("$PYTHON" --version 2>&1)"
    say "install one (Debian 12: apt-get install python3 python3-venv) or name it: make PYTHON=..."
    exit 1
}
if [ ! -x "$venv/bin/python" ]; then
    say "making $venv with $("$PYTHON" --version)"
    "$PYTHON" -m venv "$venv" || {
        rm -rf "$venv"
        say "Python's venv module is not usable (Debian: apt-get install python3-venv)"
        exit 1
    }
fi

pip() { "$venv/bin/python" -m pip "$@"; }

# For Linux the package registry has torch with CUDA, some gigabytes. TORCH_INDEX names another
# index: PyTorch's installation page says which one has the CPU build (a tenth of the size).
index=${TORCH_INDEX:-}
case $EXTRAS in
*train*)
    if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
        say "installing torch (the largest part; one to several minutes)"
        pip install --quiet --progress-bar off ${index:+--extra-index-url "$index"} torch
    fi
    ;;
esac
case $EXTRAS in # the two ONNX Runtime packages overwrite each other: the other one goes first
*gpu*) pip uninstall --quiet --yes onnxruntime 2>/dev/null || true ;;
*cpu*) pip uninstall --quiet --yes onnxruntime-gpu 2>/dev/null || true ;;
esac
say "installing the other packages (about a minute)"
pip install --quiet --progress-bar off ${index:+--extra-index-url "$index"} --editable ".[$EXTRAS]"
say "done: $("$venv/bin/instructrec" --version), in $venv/bin/instructrec"
