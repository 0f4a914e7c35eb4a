# run.sh LOG NAME words...
LOG=$1; shift
cd /tmp/work/snap
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 PYTHONPATH=/tmp/work/snap
exec nice -n 19 /work/main/.venv/bin/python -m supertf experiment run "$@" > /tmp/work/$LOG.log 2>&1
