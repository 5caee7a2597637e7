#!/bin/sh
# Rebuilds what `results/` holds, as far as this machine can; see results/README.md.
# VOC2012=FOLDER: the VOC2012 folder, with ImageSets/Main/check.txt of this folder. Default: none.
set -eu
cd "$(dirname "$0")/.."

run() {
    echo "kgradcam $*" >&2
    kgradcam "$@"
}

detect_demo() {
    run detect --dataset demo --split "$1" --class cat --model efficientnet-lite0 \
        --out "runs/results/$1" --force
}

# The demo: options are chosen on one half of its scenes, and reported on the other.
demo=results/demo
test_run=runs/results/test
detect_demo train
detect_demo test
rm -rf $demo
run tune runs/results/train --metric ap@0.5 --out $demo/options.json
run evaluate $test_run --box-options $demo/options.json --iou 0.3:0.7:0.1 --baselines \
    --bootstrap 1000 --out $demo/chosen
run evaluate $test_run --thresholds 0.02:0.60:0.02 --radii 0,5,10,20,40 --iou 0.3:0.7:0.1 \
    --baselines --out $demo/grid
rm $demo/grid/evaluation.json  # 200 kB that evaluation.csv has too
run wsol $test_run --box-options $demo/options.json --markdown >$demo/wsol.md
run faithfulness $test_run --markdown >$demo/faithfulness.md

# Runs over photographs of VOC2012, from its parent folder and without the path from the run to it, so
# that run.json has no path of this machine.
root=$PWD
if [ -n "${VOC2012:-}" ]; then
    for animal in dog:dogs cat:cats horse:horses sheep:sheep cow:cows; do
        (
            cd "$VOC2012/.."
            run detect --dataset VOC2012 --split check --class "${animal%:*}" \
                --model efficientnet-lite0 --heatmap-dtype uint16 \
                --out "$root/results/voc2012-${animal#*:}" --force
        )
        described=results/voc2012-${animal#*:}/run.json
        sed '/^    "folder": /d' $described >$described.new
        mv $described.new $described
    done
else
    echo "Not rebuilt: results/voc2012-* (needs the photographs: make results VOC2012=FOLDER)." >&2
fi
for animals in dogs cats horses sheep cows; do
    run evaluate "results/voc2012-$animals" --bootstrap 1000 --markdown
done | sed '6,${/^Protocol/d; /^| class/d; /^| ---/d; /^$/d}' >results/voc2012.md
echo "Not rebuilt: results/2021, the detections of another program; its README has their source." >&2
