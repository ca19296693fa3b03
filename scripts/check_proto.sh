#!/bin/sh
# Fail if the committed protobuf stubs are not what `make proto` makes of proto/.
set -eu
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
sh scripts/make_proto.sh "$fresh"
for made in "$fresh"/instructrec_deploy/pb/*/*; do
    name=${made#"$fresh"/}
    if ! cmp -s "$made" "$name"; then
        echo "check: $name is not fresh: run make proto"
        exit 1
    fi
done
echo "check: protobuf stubs are fresh"
