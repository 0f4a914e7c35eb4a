Q=$1
while true; do
 f=$(ls /tmp/work/$Q/*.sh 2>/dev/null | head -1)
 [ -z "$f" ] && { sleep 3; continue; }
 date +"%T start $f" >> /tmp/work/loop.log
 bash $f; mv $f /tmp/work/qdone/
 date +"%T end $f" >> /tmp/work/loop.log
done
