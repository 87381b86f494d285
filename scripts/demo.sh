#!/bin/bash
# demo.sh - from a fresh machine to generated text: installs what is missing, builds, fetches a small model, runs it.
#
#     scripts/demo.sh [PROMPT]
set -euo pipefail
. "$(dirname "$0")/setup.sh"
cd "$ts_root"

ts_install
say "building build/release"
cmake --preset release >/dev/null
cmake --build --preset release --target tessera -- --quiet

model=$(ts_default_model)
question=${1:-What is the capital of France, and why do people like to visit it?}
case $model in
*SmolLM2*) # an instruction-tuned model: the question in its own chat format
    prompt=$'<|im_start|>user\n'$question$'<|im_end|>\n<|im_start|>assistant\n' ;;
*) prompt=$question ;; # a base model continues the text
esac
command=(build/release/tessera run -m "$model" -p "$prompt" -n 200 --temp 0 --repeat-penalty 1.1
    --no-display-prompt)
say "$(printf '%q ' "${command[@]}")"
"${command[@]}"
