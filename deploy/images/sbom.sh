#!/usr/bin/env bash
# A bill of materials (SPDX 2.3, JSON) of a program: sbom.sh NAME VERSION; on stdin a line for each package: name vVERSION licence.
set -euo pipefail
name=$1 version=$2
# A packager may set the date; without it the document is the same for the same packages.
created=$(date --utc --date="@${SOURCE_DATE_EPOCH:-0}" +%Y-%m-%dT%H:%M:%SZ)
cat <<JSON
{"spdxVersion":"SPDX-2.3","dataLicense":"CC0-1.0","SPDXID":"SPDXRef-DOCUMENT","name":"$name-$version",
 "documentNamespace":"https://meshctl.dev/spdx/$name-$version",
 "creationInfo":{"created":"$created","creators":["Tool: deploy/images/sbom.sh"]},
 "packages":[
JSON
awk '{
    version = substr($2, 2); licence = $0; sub(/^[^ ]+ [^ ]+ ?/, "", licence); gsub(/\//, " OR ", licence)
    if (licence == "") licence = "NOASSERTION"
    id = $1 "-" version; gsub(/[^A-Za-z0-9.-]/, "-", id)
    if (NR > 1) printf ",\n"
    printf "  {\"SPDXID\":\"SPDXRef-%s\",\"name\":\"%s\",\"versionInfo\":\"%s\",\"licenseDeclared\":\"%s\",\"downloadLocation\":\"NOASSERTION\"}", id, $1, version, licence
} END { print "\n ]}" }'
