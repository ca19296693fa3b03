#!/bin/sh
# Generate the protobuf stubs from proto/ into the package (or below the folder given as $1).
#
# `-I PACKAGE/pb/v1=proto/...` gives the file the path of its stub, so that the generated module
# is imported inside the package without being patched. No gRPC stub: server and client name the
# methods by their path, and such a stub would demand this very grpcio version at run time.
set -eu
cd "$(dirname "$0")/.."
out=${1:-.}
python=${PYTHON:-python}
"$python" -m grpc_tools.protoc \
    -I instructrec_deploy/pb/v1=proto/instructrec/v1 \
    -I instructrec_deploy/pb/inference=proto/inference \
    --python_out="$out" --pyi_out="$out" \
    instructrec_deploy/pb/v1/instructrec.proto \
    instructrec_deploy/pb/inference/open_inference.proto
