# Sourced by the scripts beside it: finds interpreters and makes environments. Their folder is the repository's.

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYTHONUNBUFFERED=1

# Has Debian bring Python's venv module where we may ask it to; whoever has it already notices nothing.
need_venv() {
  if python3 -c 'import ensurepip, venv' 2>/dev/null; then return; fi
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update || true
    apt-get -qq install -y --no-install-recommends python3 python3-venv || true
  fi
  python3 -c 'import ensurepip, venv' || { echo "python3 with its venv module is needed" >&2; return 1; }
}

# Prints the path of a Python of that version (3.12): on PATH, or where pyenv and uv keep theirs.
find_python() {
  local candidate home=${HOME:-/nowhere}
  for candidate in "python$1" {"${PYENV_ROOT:-$home/.pyenv}",/opt/pyenv,/usr/local/pyenv}/versions/"$1".*/bin/python \
    "$home"/.local/share/uv/python/cpython-"$1".*/bin/python; do
    # A shim may stand for a version that is not switched on, and a wildcard for nothing: only running it tells.
    if [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$1" ]; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  return 1
}

# need_uv: has uv at hand in an environment of its own. It installs in 5 s what takes pip 40; without it pip does.
need_uv() {
  [ -x .venv-ci/uv/bin/uv ] || { python3 -m venv .venv-ci/uv && .venv-ci/uv/bin/python -m pip install -q uv; } || true
}

# make_environment PYTHON FOLDER REQUIREMENT...
make_environment() {
  local python=$1 folder=$2
  shift 2
  "$python" -m venv "$folder" && install_into "$folder" "$@"
}

# install_into FOLDER REQUIREMENT...: into an environment. What is never imported need not be compiled.
install_into() {
  local folder=$1
  shift
  # What pip is told of its index (pip.conf) uv does not read.
  [ -x .venv-ci/uv/bin/uv ] && .venv-ci/uv/bin/uv pip install -q --python "$folder/bin/python" "$@" ||
    "$folder/bin/python" -m pip install -q --no-compile "$@"
}
