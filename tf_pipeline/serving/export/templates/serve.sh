#!/bin/sh
# Serve this folder: REST on port 8501, gRPC on 8500. Arguments are passed on to tensorflow_model_server.
#   REST_PORT=9501 GRPC_PORT=9500 ENGINE=podman ./serve.sh --rest_api_timeout_in_ms=5000
set -eu
folder=$(cd "$(dirname "$0")" && pwd)
engine=${ENGINE:-$(command -v docker || command -v podman || true)}
if [ -z "$engine" ]; then
  echo "serve.sh: neither docker nor podman is installed; ENGINE names another program" >&2
  exit 1
fi
# The image's shell does not pass on signals; Docker's init does. Podman's is not installed everywhere.
case "$engine" in *podman) init= ;; *) init=--init ;; esac
# shellcheck disable=SC2086
exec "$engine" run --rm $init \
  -p "${GRPC_PORT:-8500}:8500" -p "${REST_PORT:-8501}:8501" \
  -e "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS=${TF_ONEDNN_ASSUME_FROZEN_WEIGHTS:-@{packed_weights}}" \
  -v "$folder:/models/@{name}:ro" \
  "docker.io/tensorflow/serving:@{server_version}" \
  --model_config_file=/models/@{name}/models.config \
  --enable_batching --enable_per_model_batching_parameters --rest_api_timeout_in_ms=60000 "$@@"
