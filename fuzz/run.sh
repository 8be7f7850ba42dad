#!/usr/bin/env bash
# Runs fuzz targets, one per core at a time: `fuzz/run.sh SECONDS [TARGET...]`, each for so long; all of them where none is
# named. For 0 seconds: only what is in the corpus of the tree. With the pinned stable toolchain and without cargo-fuzz: coverage needs no nightly, and a sanitizer would have
# nothing to find in code without `unsafe`. What a run finds beyond the corpus in the tree is kept beside the build.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
cd fuzz
if [[ $# == 0 ]]; then
    mapfile -t targets < <(basename -s .rs fuzz_targets/*.rs)
else
    targets=("$@")
fi

# The very versions that the product has.
cp ../Cargo.lock Cargo.lock
# As `cargo fuzz build --sanitizer none`. For the host by name, so that build scripts stay as they are.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
bins=()
for target in "${targets[@]}"; do
    bins+=(--bin "$target")
done
RUSTFLAGS=$coverage cargo build --quiet --release --target "$host" --target-dir "$target_dir" "${bins[@]}"

one() {
    local target=$1 found=$target_dir/corpus/$1 artifacts=$target_dir/artifacts/$1/ log=$target_dir/$1.log
    local length=(-max_total_time="$seconds")
    if [[ $seconds == 0 ]]; then
        length=(-runs=0)
        found=corpus/$target
    fi
    mkdir -p "$found" "$artifacts" "corpus/$target"
    if "$target_dir/$host/release/$target" "${length[@]}" -max_len=4096 -timeout=25 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$artifacts" "$found" "corpus/$target" >"$log" 2>&1; then
        printf '%-20s %s\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: */runs: /p' "$log")"
    else
        printf '%-20s FAILED; again with: %s\n' "$target" "$target_dir/$host/release/$target ARTIFACT"
        tail -n 60 "$log"
        return 1
    fi
}
export -f one
export seconds host target_dir
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'one {}'
