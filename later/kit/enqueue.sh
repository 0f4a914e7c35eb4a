NAME=$1; shift
S=/tmp/work/snap/$(date +%H%M%S)_$NAME; mkdir -p $S; cp -r ${SRC:-/work/wt/ev}/supertf $S/
cat > /tmp/work/q/$(date +%H%M%S)_$NAME.sh <<EOF
cd $S
export OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 PYTHONPATH=$S
/work/main/.venv/bin/python -m supertf experiment run $NAME --record $@ > /tmp/work/$NAME.log 2>&1
EOF
sleep 1
