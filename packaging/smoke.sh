#!/usr/bin/env bash
# The package as a user gets it: sdist and wheel built and checked, the wheel alone in an empty environment, used from an empty folder.
#   bash packaging/smoke.sh [PYTHON] [RESOLUTION]      e.g. 3.13, or: 3.11 lowest-direct
set -euo pipefail
source="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${1:-3.11}" resolution="${2:-highest}"
place="$(mktemp -d)"
trap 'rm -r "$place"' EXIT
cd "$place"
uv build --quiet --out-dir dist "$source"
uvx twine check --strict dist/*
uv venv --quiet --python "$python" env
uv pip install --quiet --python env --resolution "$resolution" dist/*.whl
mkdir empty && cd empty
for command in --version "list" "doctor" "completion bash" "fit troi --help"; do
  "$place/env/bin/pulvinar" $command > /dev/null
done
"$place/env/bin/pulvinar" demo --out demo
"$place/env/bin/pulvinar" data inspect demo/data
"$place/env/bin/python" -c "import pulvinar; print(repr(pulvinar.load('demo/run')))"
echo "the wheel works: Python $python, $resolution"
