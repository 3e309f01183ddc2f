#!/bin/sh
# One command that proves the library on a GPU, in nine minutes, into $OUT/result.json (./out where
# OUT is not set). What the machine lacks comes from benchmarks/gpu/pack, where pack.sh has made it.
#
#     sh benchmarks/gpu/run.sh              # on a GPU
#     sh benchmarks/gpu/run.sh --dry        # everything in small on a CPU, with what is installed
#     sh benchmarks/gpu/run.sh --only loss,step
set -eu
cd "$(dirname "$0")/../.."
if [ -x .venv/bin/python ]; then PYTHON=${PYTHON:-.venv/bin/python}; fi
PYTHON=${PYTHON:-python3}
case " $* " in
*" --dry "*) ;;
*)
    WORK=${WORK:-$(mktemp -d)}
    "$PYTHON" - benchmarks/gpu/pack "$WORK" <<'UNPACK'
import pathlib, sys, tarfile, time
pack, work = map(pathlib.Path, sys.argv[1:])
for archive in sorted(pack.glob("*.tar.xz")):
    start = time.time()
    with tarfile.open(archive) as tar:
        tar.extractall(work / archive.name.split(".")[0], filter="data")
    print(f"unpacked {archive.name} in {time.time() - start:.0f} s", flush=True)
UNPACK
    export PYTHONPATH="$PWD:$WORK/site${PYTHONPATH:+:$PYTHONPATH}"
    if [ -d "$WORK/pointcept" ]; then export POINTCEPT_ROOT="$WORK/pointcept"; fi
    if [ -d "$WORK/scenes" ]; then export REAL_SCENES="$WORK/scenes"; fi
    ;;
esac
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
exec "$PYTHON" benchmarks/gpu/run.py "$@"
