# enqueue.sh QUEUE NAME [words]: record an experiment from a snapshot of the tree SRC, THREADS threads
Q=$1; NAME=$2; shift 2
S=/tmp/work/snap/$(date +%H%M%S)_$NAME; mkdir -p $S; cp -r ${SRC:-/work/wt/ev}/supertf $S/
cat > /tmp/work/$Q/$(date +%H%M%S)_$NAME.sh <<EOF
cd $S
export OMP_NUM_THREADS=${THREADS:-1} HF_HUB_OFFLINE=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 PYTHONPATH=$S
exec nice -n 19 /work/main/.venv/bin/python -m supertf experiment run $NAME --record $@ > /tmp/work/$NAME.log 2>&1
EOF
sleep 1
