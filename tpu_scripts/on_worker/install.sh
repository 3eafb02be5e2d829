#!/usr/bin/env bash
# Installs cptjax on this worker: Python 3.12 by uv (the image's own is older), and the packages at the versions that
# tpu_scripts/constraints.txt pins, in ~/cptjax_env. setup.sh calls it. Run again it changes what has changed.
#   install.sh EXTRAS        text,tpu: rows are made here too; tpu: rows were made elsewhere, and no bucket is written to
set -euo pipefail
extras=$1 uv_version=0.13.9
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PATH="$HOME/.local/bin:$PATH"

if [ "$(uv --version 2> /dev/null | cut -d ' ' -f 2)" != "$uv_version" ]; then
  curl --proto '=https' --tlsv1.2 -fsSL --retry 5 "https://astral.sh/uv/$uv_version/install.sh" | env UV_NO_MODIFY_PATH=1 sh
fi
[ -x "$HOME/cptjax_env/bin/python" ] || uv venv --quiet --python 3.12 "$HOME/cptjax_env"
uv pip install --quiet --python "$HOME/cptjax_env/bin/python" --constraint "$repository/tpu_scripts/constraints.txt" \
  --editable "${repository}[$extras]"
echo "cptjax is ready on $(hostname): $(git -C "$repository" rev-parse --short HEAD), $("$HOME/cptjax_env/bin/python" --version), $(
  uv pip list --quiet --python "$HOME/cptjax_env/bin/python" --format freeze | grep -E '^(jax|libtpu)==' | tr '\n' ' '
)"
