#!/usr/bin/env bash
# Shows a run's metrics as they come: from a bucket, without going near the TPUs; or from the disk of worker 0 of node 0.
#   tpu_scripts/metrics.sh --run=gs://bucket/run --fields=step,tokens,loss,tokens_per_second,mfu
# Required: --run, the run's OUTPUT_DIR; unless it is a bucket also --name, --zone, --project, as for create.sh.   Optional:
#   --fields=A,B,...     of metrics.jsonl, tab-separated under a header (whole lines, as they are)
#   --lines=10           so many from before
#   --every=60           ask a bucket so often, in seconds; 0: once, and end
#   --internal_ip, --tunnel_through_iap   how the workers are reached, as gcloud has it
#   --dry_run            print the commands and run none; --help
# Exit codes: 0; 1 there is nothing there, or gcloud refused; 2 this command is wrong. Ctrl-C ends it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=queued_resource.sh
. "$(dirname "${BASH_SOURCE[0]}")/queued_resource.sh"

run="" fields="" lines=10 every=60
while [ $# -gt 0 ]; do
  case $1 in
    --run=*) run=${1#*=} ;;
    --fields=*) fields=${1#*=} ;;
    --lines=*) lines=${1#*=} ;;
    --every=*) every=${1#*=} ;;
    *) take_flag "$1" || refuse_flag "$1" ;;
  esac
  shift
done
[ -n "$run" ] || fail 2 "whose metrics?" "Give --run=FOLDER, the run's OUTPUT_DIR, a bucket's (gs://...) or one on the workers."
[[ $lines =~ ^[0-9]+$ ]] || fail 2 "--lines=$lines is no number of lines."
file=${run%/}/metrics.jsonl

# Lines of metrics.jsonl, as they are or their fields; what is not there is "-".
show() {
  if [ -z "$fields" ]; then
    cat
  else
    awk -v names="$fields" '
      BEGIN { n = split(names, name, ","); for (i = 1; i <= n; i++) printf "%s%s", name[i], i < n ? "\t" : "\n"; fflush() }
      {
        for (i = 1; i <= n; i++) {
          key = "\"" name[i] "\": "
          at = index($0, key)
          value = "-"
          if (at) { value = substr($0, at + length(key)); sub(/[,}].*/, "", value) }
          printf "%s%s", value, i < n ? "\t" : "\n"
        }
        fflush()
      }'
  fi
}

if [ "${run#gs://}" = "$run" ]; then
  require_resource
  command="cd cptjax && tail -n $lines -F $(quoted "$file")" # runs are started in ~/cptjax
  [ "$every" != 0 ] || command=${command/ -F/}
  if [ -n "$dry_run" ]; then on_workers 0 0 "$command"; else on_workers 0 0 "$command" | show; fi
  exit
fi

require_gcloud
size() { cloud storage objects describe "$file" --format='value(size)'; }
from_byte() { cloud storage cat "$file" --range="$1-"; }
if [ -n "$dry_run" ]; then
  size
  from_byte 0
  exit
fi

# Whole lines only: a line that is being written is shown when it is all there.
follow() {
  local now chunk at=0 first=1
  now=$(size) || fail 1 "$file is not there, or not for you to read."
  [ "$now" -lt 262144 ] || at=$((now - 262144))
  while :; do
    if [ "$now" -lt "$at" ]; then at=0; fi # the run was resumed from a checkpoint before its last lines
    if [ "$now" -gt "$at" ]; then
      if chunk=$(from_byte "$at" && printf x); then
        chunk=${chunk%x}
      else # a network that comes and goes: asked again
        [ "$every" != 0 ] || fail 1 "$file could not be read."
        chunk=""
      fi
      if [[ $chunk == *$'\n'* ]]; then
        chunk=${chunk%$'\n'*}$'\n'
        at=$((at + $(printf %s "$chunk" | wc -c)))
        [ $first = 0 ] || [ "$now" -lt 262144 ] || chunk=${chunk#*$'\n'}
        if [ $first = 1 ]; then printf %s "$chunk" | tail -n "$lines"; else printf %s "$chunk"; fi
        first=0
      fi
    fi
    [ "$every" != 0 ] || return 0
    sleep "$every"
    now=$(size) || continue
  done
}
follow | show
