#!/usr/bin/env bash
# Makes files like those of this folder, and models like the shipped pair, on a machine with a GPU.
# Usage: bash notebooks/results/measure.sh PART...
#   pair       the two models of notebooks/checkpoints (7 layers, 5.7M parameters): the median of three seeds
#   small_pair the pair that was shipped before: one seed, fewer steps
#   deep       the same with 12 thinner layers (5.4M)
#   main       softmax (1.5h heads) and DIFF V2 at 25M parameters, six seeds
#   variants   everything else at 25M, three seeds, one of V1; same file
#   best       the same, and the variants that "variants" lacks, at 1e-3, the best rate for DIFF V2
#   lr         the main pair, and V1 at one of them, at other learning rates
#   more_lr    the main pair at rates between those, at some with three more seeds
#   long       softmax (1.5h heads) and DIFF V2 for 4000 steps at 1e-3, at 7e-4
#              too, three seeds each, with recall
#   start      DIFF V2 with other starts of its outputs and of lambda, and without decay of W_lambda; softmax
#              with outputs that start as small as those of DIFF V2
#   noise      two seeds of the main pair at 1e-3, run again
#   more_seeds six new seeds of the main pair at 1e-3, with recall
#   t4096      the main pair at 1e-3 on texts of 4096 tokens, as many tokens a step, with recall
#   prose      the main pair on English prose, nine seeds at 1e-3, three at other rates: the folder PROSE, by make_prose.py
#   v1         V1 with and without norm at its own small rates, and V2, 2000 steps, three seeds; at 1e-4 one
#   big        the main pair with 102M parameters, 1000 steps at 7e-4, six seeds
#   more_steps softmax (1.5h heads) for as long as DIFF V2 takes where softmax has flash-attn 4, and where
#              both have cuDNN alone (bench_pair_flash4, bench_pair: 1000 steps of DIFF V2; on an H200)
#   rates      short runs at larger and larger learning rates, three seeds
#   small      the same two on too little text, three seeds
#   equal_time softmax with 1.5h and with h heads, for as long as DIFF V2 takes by bench_pair.json
#   small_rates  the shipped pair's size, 1200 steps at three learning rates, one seed
#   ops, train, decode   the speed benches
#   pair_bench training steps with and without the fused pair, and their kernels, where flash-attn is
#              not installed
#   pair_flash4  the same steps where flash-attn 4 is
#   writing    generate through the fused kernels, piece by piece
#   first_token  the first text of a fresh process, with and without what Triton keeps
#   context    YOCO's prefill, decoding step and cache, attention over blocks, at 8k to 512k tokens
#   sparsity   what each choice of blocks keeps of the models in RUNS (the shipped pair)
#   retrieval  recall, loss by position and induction of the models in RUNS (those that pair keeps)
#   sparse, yoco, moe   models trained so at 25M, three to six seeds; to be compared with lr's at 1e-3
# The files go to runs/results, or to OUT, the runs to a folder of yours under TMPDIR, or to WORK; a run
# that is in its file is not run again, so that a part that was cut off goes on where it stopped.
# `python -m minidiff claims --measure --results runs/results` prints the claims from them (it needs
# main, lr, pair_bench and decode). README.md beside this says what was run, and how.
set -eu
cd "$(dirname "$0")/../.."
out=${OUT:-runs/results}
work=${WORK:-${TMPDIR:-/tmp}/minidiff-measure-$(id -u)}  # the runs: nobody else's, the same each time
mkdir -p "$out" "$work"
[ -O "$work" ] || { echo "error: $work is somebody else's: give WORK=FOLDER" >&2; exit 2; }
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
compare() { $python -m minidiff compare --preset gpu --lr 3e-3 --out "$work" "$@"; }

for part in "$@"; do
  case $part in
    pair)  # its results lie beside its runs first: weights that are gone must be made again
      compare --lr 2e-3 --warmup-steps 300 --steps 6000 --n-layer 7 --n-embd 256 --n-head 4 \
        --seeds 0 1 2 --keep-weights --probe-windows 64 --out "$work/pair" \
        --results "$work/evidence_pair.json"
      cp "$work/evidence_pair.json" "$out/"
      $python -m minidiff.study.shipped "$work/pair" "$out" ;;
    small_pair)
      compare --seeds 0 --steps 1700 --n-layer 7 --n-embd 256 --n-head 4 \
        --results "$out/evidence_5m.json" ;;
    deep)
      compare --seeds 0 --steps 1700 --n-layer 12 --n-embd 192 --n-head 4 --head-dim 48 --lrs 4e-3 \
        --results "$out/evidence_5m_deep.json" ;;
    main) compare --steps 1000 --seeds 0 1 2 3 4 5 --results "$out/evidence_25m.json" ;;
    variants)
      compare --steps 1000 --seeds 0 --results "$out/evidence_25m.json" \
        --variants diff_v1 diff_v1_no_norm
      compare --steps 1000 --seeds 0 1 2 --results "$out/evidence_25m.json" \
        --variants diff_halves diff_no_lambda diff_no_sigmoid \
          softmax_2h softmax_2h_start off_by_one sink_logit gated ;;
    lr)
      compare --steps 1000 --lrs 1e-3 --seeds 0 1 2 3 4 5 --results "$out/evidence_25m_lr.json"
      compare --steps 1000 --lrs 5e-4 6e-3 --seeds 0 1 2 --results "$out/evidence_25m_lr.json"
      compare --steps 1000 --lrs 1e-3 --seeds 0 1 2 --results "$out/evidence_25m_lr.json" \
        --variants diff_v1 diff_v1_no_norm ;;
    best)
      compare --steps 1000 --lrs 1e-3 --seeds 0 1 2 --results "$out/evidence_25m_best.json" \
        --variants diff_halves diff_no_lambda diff_no_sigmoid softmax_h softmax_2h constructed \
          off_by_one sink_logit gated diff_v1_sigmoid ;;
    more_lr)
      compare --steps 1000 --lrs 7e-4 1.4e-3 2e-3 5e-4 --seeds 0 1 2 \
        --results "$out/evidence_25m_more_lr.json"
      compare --steps 1000 --lrs 7e-4 1.4e-3 6e-3 --seeds 3 4 5 \
        --results "$out/evidence_25m_more_lr.json" ;;
    long)
      recall() { compare --steps 4000 --probe-windows 64 --retrieval-prompts 256 "$@" \
        --results "$out/evidence_25m_long4000.json"; }
      recall --lrs 1e-3 --seeds 0 1 2
      recall --lrs 7e-4 --seeds 0 1 2 ;;
    start)
      compare --steps 1000 --lrs 1e-3 --seeds 0 1 2 --results "$out/evidence_25m_start.json" \
        --variants diff_v2_doubled softmax_1.5h_quiet diff_late_lambda diff_no_decay ;;
    noise)
      compare --steps 1000 --lrs 1e-3 --seeds 0 1 --results "$out/evidence_25m_noise.json" \
        --out "$work/again" ;;
    more_seeds)
      compare --steps 1000 --lrs 1e-3 --seeds 6 7 8 9 10 11 --retrieval-prompts 256 \
        --results "$out/evidence_25m_more_seeds.json" ;;
    t4096)
      compare --steps 1000 --lrs 1e-3 --seeds 0 1 2 3 4 5 --block-size 4096 --batch-size 16 \
        --retrieval-prompts 256 --results "$out/evidence_25m_t4096.json" ;;
    prose)
      [ -d "${PROSE:-}" ] || { echo "error: give PROSE=FOLDER, made by make_prose.py" >&2; exit 2; }
      prose() { compare --steps 1000 --data "$PROSE" --out "$work/prose" "$@" \
        --results "$out/evidence_25m_prose.json"; }
      prose --lrs 1e-3 --seeds 0 1 2 3 4 5 6 7 8
      prose --lrs 5e-4 7e-4 1.4e-3 2e-3 --seeds 0 1 2 ;;
    v1)
      longer() { compare --steps 2000 --results "$out/evidence_25m_v1_2000.json" "$@"; }
      longer --lrs 1e-3 --seeds 0 1 2 --variants diff_v2
      longer --lrs 3e-4 --seeds 0 1 2 --variants diff_v1 diff_v1_no_norm
      longer --lrs 1e-4 --seeds 0 --variants diff_v1 diff_v1_no_norm ;;
    big)
      compare --steps 1000 --lrs 7e-4 --seeds 0 1 2 3 4 5 --n-layer 15 --n-embd 768 --n-head 12 \
        --n-kv-head 3 --results "$out/evidence_100m.json" ;;
    small)
      compare --steps 1500 --batch-size 32 --data stdlib --results "$out/evidence_25m_small_data.json" ;;
    equal_time)
      for name in softmax_1.5h softmax_h; do  # pair_bench must have been run, by the same code
        steps=$($python -c "from minidiff.study.measure import steps_in_equal_time as steps
print(steps('$name', 1000, '$out'))")
        compare --steps "$steps" --lrs 1e-3 --seeds 0 1 2 3 4 5 6 7 8 9 10 11 --variants "$name" \
          --results "$out/evidence_25m_equal_time_${name#softmax_}.json"
      done ;;
    more_steps)  # steps of one H200: elsewhere take them from the two files
      timed() { compare --lrs 1e-3 --seeds 0 1 2 3 4 5 6 7 8 9 10 11 --variants softmax_1.5h "$@"; }
      timed --steps 1087 --results "$out/evidence_25m_flash4_time.json"
      timed --steps 1169 --results "$out/evidence_25m_cudnn_time.json" ;;
    rates)
      compare --steps 300 --batch-size 32 --seeds 0 1 2 --lrs 6e-3 1.2e-2 2.4e-2 \
        --results "$out/evidence_25m_rates.json" \
        --variants softmax_1.5h diff_v2 diff_halves diff_no_sigmoid ;;
    small_rates)
      compare --lrs 1e-3 2e-3 4e-3 --warmup-steps 250 --steps 1200 --n-layer 7 --n-embd 256 \
        --n-head 4 --seeds 0 --probe-windows 16 --results "$out/evidence_5m_rates.json" ;;
    pair_bench)  # diff_v2 is the pair at d = 64, and two steps at d = 128
      $python -m minidiff bench train --profile --out "$out/bench_pair.json" \
        --variants softmax_1.5h diff_v2 pair two_steps one_by_one softmax_h ;;
    pair_flash4)
      $python -m minidiff bench train --rounds 5 --variants softmax_1.5h pair two_steps \
        --out "$out/bench_pair_flash4.json" ;;
    writing)
      OUT="$out" $python notebooks/results/measure_writing.py
      mv "$out/writing.json" "$out/bench_writing.json" ;;
    ops | train | decode) $python -m minidiff bench "$part" --out "$out/bench_$part.json" ;;
    first_token) OUT="$out" $python notebooks/results/measure_first_token.py ;;
    context) $python -m minidiff.bench.context --out "$out/bench_context.json" ;;
    sparsity)  # this and retrieval take minutes: all of it anew
      rm -f "$out/sparsity.json"
      # shellcheck disable=SC2086  # RUNS is a list of folders
      $python -m minidiff.study.sparsity \
        ${RUNS:-notebooks/checkpoints/diff_v2 notebooks/checkpoints/softmax_1.5h} \
        --out "$out/sparsity.json" ;;
    retrieval)
      rm -f "$out/retrieval_pair.json"
      # shellcheck disable=SC2086  # RUNS is a list of folders
      $python -m minidiff.study.long_context ${RUNS:-$work/pair/*-seed*} \
        --out "$out/retrieval_pair.json" ;;
    sparse)
      compare --steps 1000 --lrs 1e-3 --seeds 0 1 2 3 4 5 --results "$out/evidence_25m_sparse.json" \
        --variants sparse_softmax sparse_pair
      compare --steps 1000 --lrs 1e-3 --seeds 0 1 2 --results "$out/evidence_25m_sparse.json" \
        --variants sparse_head ;;
    yoco)
      compare --steps 1000 --lrs 1e-3 --results "$out/evidence_25m_yoco.json" \
        --variants yoco_softmax yoco_diff_v2 ;;
    moe)
      compare --steps 1000 --lrs 1e-3 --seeds 0 1 2 3 4 5 --results "$out/evidence_25m_moe.json" \
        --variants moe_softmax moe_diff_v2 ;;
    *) echo "unknown part $part" >&2; exit 2 ;;
  esac
done
