#!/bin/sh
# Fail if the committed protobuf stubs are not what `make proto` makes of proto/.
set -eu
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
sh scripts/make_proto.sh "$fresh"
for made in "$fresh"/instructrec_deploy/pb/v1/*; do
    if ! cmp -s "$made" "instructrec_deploy/pb/v1/$(basename "$made")"; then
        echo "check: instructrec_deploy/pb/v1/$(basename "$made") is not fresh: run make proto"
        exit 1
    fi
done
echo "check: protobuf stubs are fresh"
