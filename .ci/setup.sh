#!/bin/sh
# Makes the virtual environment, or leaves it as it is where it fits already. Usage: setup.sh run|dev
# PYTHON names the interpreter, TORCH=cpu|cuda the torch build, VENV the folder; each is chosen when it is not named.
set -eu
level=${1:-run}
venv=${VENV:-.venv}
key_file=$venv/made-from

stop() {
    printf 'atelier: %s\n' "$1" >&2
    exit 1
}

check_make() {
    case ${MAKE_VERSION:-3.81} in
        3.8[1-9]* | [4-9].* | [1-9][0-9].*) ;;
        *) stop "This Makefile needs GNU make 3.81 or newer, and this is make $MAKE_VERSION: install GNU make (it may be called gmake) and use that." ;;
    esac
}

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if usable "$python"; then return; fi
    done
    stop "Python 3.11 or newer is needed, and ${PYTHON:-python3} is not it: install one, or name it, as in: make demo PYTHON=/path/to/python3.12"
}

check_folder() {
    mkdir -p "$venv" 2>/dev/null && [ -w "$venv" ] ||
        stop "$venv cannot be written: clone into a folder of your own, or name another, as in: make demo VENV=\$HOME/atelier-venv"
}

check_venv_module() {
    "$python" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
        stop "$python has no venv module: install it (on Debian or Ubuntu: sudo apt install python3-venv) and try again."
}

check_disk() { # $1: GB that this build takes
    free=$(df -Pk "$venv" | awk 'NR == 2 { print int($4 / 1048576) }')
    [ "$free" -ge "$1" ] || stop "$1 GB of disk are needed under $venv and $free GB are free: free some, or name another place with VENV=FOLDER."
}

choose_torch() {
    case ${TORCH:-} in
        cpu | cuda) torch=$TORCH ;;
        '') if nvidia-smi >/dev/null 2>&1; then torch=cuda; else torch=cpu; fi ;;
        *) stop "TORCH=$TORCH is not a build: say TORCH=cpu or TORCH=cuda." ;;
    esac
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

install_torch() {
    version=$(sed -n 's/^torch==//p' constraints.txt)
    if [ "$torch" = cuda ] || [ "$(uname -s)" = Darwin ]; then # on a Mac the one build there is runs on the CPU
        pip install -qq "torch==$version"
        return
    fi
    if pip install -qq -c constraints.txt "torch==$version+cpu" 2>/dev/null; then return; fi
    pip install -qq -c constraints.txt --index-url https://download.pytorch.org/whl/cpu "torch==$version+cpu"
}

make_venv() {
    echo "Setting up $venv with $("$python" -V), torch for $torch (a few minutes; the next time it is there already)"
    "$python" -m venv --clear "$venv"
    install_torch || stop "torch could not be installed: see pip's words above; is there a connection to the package index?"
}

install_atelier() {
    extras=$([ "$level" = dev ] && echo '[dev]' || true)
    pip install -qq -c constraints.txt -e ".$extras" ||
        stop "The packages could not be installed: see pip's words above; is there a connection to the package index?"
}

check_make
choose_torch
made=none
key="$torch $(cat pyproject.toml constraints.txt .ci/setup.sh | cksum)"
if [ -f "$key_file" ] && "$venv/bin/python" -c '' 2>/dev/null; then made=$(cat "$key_file"); fi
case $made in
    "$key dev" | "$key $level") exit 0 ;;
    "$key run") ;; # only the tools for developing are missing
    *)
        find_python
        check_folder
        check_venv_module
        check_disk "$([ "$torch" = cuda ] && echo 9 || echo 3)"
        make_venv
        ;;
esac
install_atelier
echo "$key $level" >"$key_file"
