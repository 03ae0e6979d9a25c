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
chosen=(${extras:+$(printf -- '--extra %s ' ${extras//,/ })})
[ "$extras" = all ] && chosen=(--all-extras)
# The dependencies are named beside the wheel: only then are they the direct ones that `lowest-direct` is about.
uv pip install --quiet --python env --resolution "$resolution" -r "$source/pyproject.toml" "${chosen[@]}" dist/*.whl
mkdir empty && cd empty
"$place/env/bin/pulvinar" doctor
"$place/env/bin/python" "$source/packaging/smoke.py" ${extras//,/ }
echo "the wheel works: Python $python, $resolution, ${extras:-no extras}"
