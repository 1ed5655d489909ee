#!/bin/sh
# A run as one ONNX file, and the number of objects of each class that it finds on photographs:
#
#     sh examples/onnx_predict.sh runs/helmet photo.jpg …
set -eu
run=$1
shift
python -m fewshot_cli export "$run" --out model.onnx --quiet
python "$(dirname "$0")/onnx_predict.py" model.onnx "$@" | awk '{ count[$(NF - 5)]++ } END { for (name in count) print name, count[name] }'
