#!/usr/bin/env bash
# Give images to the running cluster: import.sh [FILE.tar …], by default all of target/images. Pods that are started after
# it run them; no registry is asked.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

files=("$@")
((${#files[@]})) || files=("$here"/../../target/images/*.tar)
for file in "${files[@]}"; do
    [[ -f $file ]] || die "$file is not there; just images makes them"
    ctr --address "$socket" --namespace k8s.io images import "$file" >/dev/null
    say "imported $file"
done
