#!/bin/sh
# A run as one ONNX file, and the number of objects of each class that it finds on photographs:
#
#     sh examples/onnx_predict.sh runs/helmet photo.jpg …
set -eu
run=$1
shift
python -m fewshot_cli export "$run" --out model.onnx --quiet >&2
python "$(dirname "$0")/onnx_predict.py" model.onnx "$@" | cut -f 2 | sort | uniq -c
