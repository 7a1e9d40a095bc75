#!/usr/bin/env bash
# Makes the files of this folder, on a machine with a GPU. README.md beside it says which GPU did.
# Usage: bash notebooks/results/measure.sh PART...
#   pair       the two models of notebooks/checkpoints
#   main       softmax (1.5h heads) and DIFF V2 at 25M parameters, three seeds
#   variants   everything else at 25M, one seed
#   rates      larger and larger learning rates, for the claims about stability
#   ops, train, decode   the speed benches
# A part that was cut off goes on where it stopped: a run that is in its file is not run again.
set -eu
cd "$(dirname "$0")/../.."
out=${OUT:-notebooks/results}
python=${PYTHON:-python3}
compare() { $python -m minidiff compare --preset gpu --batch-size 32 --out /tmp/runs "$@"; }

for part in "$@"; do
  case $part in
    pair)
      $python -m minidiff train --preset gpu --out /tmp/pair --n-layer 6 --n-embd 256 --n-head 4 \
        --block-size 512 --batch-size 128 --overwrite
      for name in diff_v2 softmax_1.5h; do
        $python -c "from minidiff.runs import export_run; export_run('/tmp/pair/$name', '$out/$name')"
      done ;;
    main) compare --steps 1500 --results "$out/evidence_main.json" ;;
    variants)
      compare --steps 1500 --seeds 0 --results "$out/evidence_variants.json" \
        --variants diff_v1 diff_no_lambda diff_no_sigmoid diff_halves gated sink_logit off_by_one \
        softmax_2h diff_v1_no_norm gated_headwise ;;
    rates)
      compare --steps 400 --seeds 0 --lrs 6e-3 1.2e-2 2.4e-2 --results "$out/evidence_rates.json" \
        --variants softmax_1.5h diff_v2 diff_halves diff_no_sigmoid ;;
    ops | train | decode) $python -m minidiff bench "$part" --out "$out/bench_$part.json" ;;
    *) echo "unknown part $part" >&2; exit 2 ;;
  esac
done
