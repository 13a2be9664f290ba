#!/usr/bin/env bash
# Runs all commands on this machine's CPU, with 200 images and a folder in place of the borrowed machine; two minutes.
#   unshare -n tests/bench/borrowed/rehearse.sh CIFAR100 [PYTHON]
# CIFAR100 is the folder of the data set's Parquet files. PYTHON is the interpreter in place of the borrowed machine's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
root=$PWD home=(python tests/bench/borrowed) there=("$(command -v "${2:-python}")" tests/bench/borrowed)
work=$(mktemp -d) pack=
trap 'if [ "$pack" ]; then kill -TERM "$pack" && wait "$pack" || true; fi; rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
options=(--at "$work/machine" --device cpu)

python - "$1" "$work/cifar100" <<'EOF'
import sys
from pathlib import Path
from pyarrow import parquet
Path(sys.argv[2]).mkdir()
for file in Path(sys.argv[1]).glob("t*-*.parquet"):
    parquet.write_table(parquet.read_table(file).slice(0, 100), Path(sys.argv[2], file.name))
EOF
sed 's/^batch_size = .*/batch_size = 20/' recipes/swin_t-drloc-cifar100.toml >"$work/small.toml"

echo "== pack"
"${home[@]}" pack --data "$work/cifar100" >"$work/pack.log" &
pack=$!
until grep -q "is empty" "$work/pack.log"; do
    kill -0 $pack || exit 1
    sleep 0.2
done
mkdir "$work/there"
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done |
    tar --null --files-from=- --create | tar --extract --directory="$work/there"
cp -R --parents .borrowed/part* "$work/there"
kill -TERM $pack && wait $pack
pack=
cat "$work/pack.log"

cd "$work/there"
echo "== smoke"
"${there[@]}" smoke "$work/small.toml" 1 "${options[@]}" --seconds 1 --batch 20 --steps 2 --check 8
echo "== train"
"${there[@]}" train "$work/small.toml" 5 "${options[@]}" --most 1 --trial 1
echo "== harvest"
"${there[@]}" harvest swin_t-drloc-cifar100 "${options[@]}" --wait 300 --out "$work/out"

cd "$root"
echo "== join"
"${home[@]}" join "$work/out" --out "$work/model" --data "$work/cifar100"
python -m vtzoo evaluate --model "$work/model" --data "$work/cifar100" | head -3
echo "== everything works"
