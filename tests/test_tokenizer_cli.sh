#!/bin/bash
# test_tokenizer_cli.sh - `tessera tokenize` there and back, and its refusals.
set -u
vocab=$TS_SOURCE_DIR/tests/golden/tokenizer/spm.vocab
failed=0

same() # NAME GOT WANTED
{
    [ "$2" == "$3" ] && return
    printf '%s: got %q, not %q\n' "$1" "$2" "$3"
    failed=1
}

refuses() # SENTENCE ARGUMENTS...
{
    local said status
    said=$("$TESSERA" tokenize "${@:2}" 2>&1 >/dev/null </dev/null)
    status=$?
    same "status of ${*:2}" $status 1
    [[ $said == *"$1"* ]] || { printf '%s: said %q, not %q\n' "${*:2}" "$said" "$1"; failed=1; }
}

text=$'the  <table>na\xc3\xafve \xe4\xb8\xad<end_of_turn> 123\n'
ids=$("$TESSERA" tokenize -m "$vocab" -p "$text" | awk '{ print $1 }' | paste -sd,)
same "there and back" "$("$TESSERA" tokenize -m "$vocab" --ids "$ids" --special)" "<s>${text%$'\n'}"
same "from stdin" "$(printf '%s' "$text" | "$TESSERA" tokenize -m "$vocab" | awk '{ print $1 }' | paste -sd,)" "$ids"
same "without bos" "$("$TESSERA" tokenize -m "$vocab" -p "" --no-bos)" ""
same "bos alone" "$("$TESSERA" tokenize -m "$vocab" -p "" | awk '{ print $1 }')" "1"
n=$("$TESSERA" tokenize -m "$vocab" -p "<end_of_turn>" --no-bos | wc -l)
same "one control token" "$n" 1
n=$("$TESSERA" tokenize -m "$vocab" -p "<end_of_turn>" --no-bos --no-parse-special | wc -l)
[ "$n" -gt 1 ] || same "control token as text" "$n" "more than 1"
json=$("$TESSERA" tokenize -m "$vocab" -p $'\xff' --no-bos --json | tr -d '\n ')
[[ $json == *'"hex":"ff"'*'"n_tokens":'* ]] || same "json" "$json" '..."hex":"ff"...'
same "json back" "$("$TESSERA" tokenize -m "$vocab" --ids 1 --special --json)" '{"text": "<s>"}'
refuses "'x' is not a token id" -m "$vocab" --ids 1,x
refuses "there are" -m "$vocab" --ids 99999999
refuses "--ids excludes" -m "$vocab" --ids 1 -p a
refuses "exclude each other" -m "$vocab" -p a -f b
refuses "/none" -m /none -p a
refuses "/none" -m "$vocab" -f /none
exit $failed
