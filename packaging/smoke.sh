#!/usr/bin/env bash
# The package as a user gets it: sdist and wheel built and checked, the wheel alone in an empty environment, used from an empty folder.
#   bash packaging/smoke.sh [PYTHON] [RESOLUTION] [EXTRAS]      e.g. 3.13, or: 3.11 lowest-direct all, or: 3.12 highest vision,deploy
set -euo pipefail
source="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${1:-3.11}" resolution="${2:-highest}" extras="${3:-}"
place="$(mktemp -d)"
trap 'rm -r "$place"' EXIT
cd "$place"
uv build --quiet --out-dir dist "$source"
uvx twine check --strict dist/*
uv venv --quiet --python "$python" env
wheel="$(echo "$place"/dist/*.whl)" wanted="$extras"
if [ "$extras" = all ]; then  # those that the wheel says it has
  wanted="$(unzip -p "$wheel" '*/METADATA' | tr -d '\r' | sed -n 's/^Provides-Extra: //p' | paste -sd,)"
fi
uv pip install --quiet --python env --resolution "$resolution" "$wheel${wanted:+[$wanted]}"
mkdir empty && cd empty
"$place/env/bin/pulvinar" doctor
"$place/env/bin/python" "$source/packaging/smoke.py" ${extras//,/ }
echo "the wheel works: Python $python, $resolution, ${extras:-no extras}"
