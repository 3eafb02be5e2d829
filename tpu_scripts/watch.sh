#!/usr/bin/env bash
# Keeps a command running on TPUs until it is done: asks for them, sets them up, runs it, and when it was stopped (exit code 75) or the
# TPUs were taken away, gets TPUs again and starts the same command, which goes on from what it had saved.
#   tpu_scripts/watch.sh --name=pod --zone=us-east5-a --project=mine --topology=v5p:4x4x4 --spot -- \
#     python -m cptjax.main --gin_file=gin/recipes/reuse.gin ... --gin.OUTPUT_DIR="'gs://bucket/run'"
# It may be stopped (Ctrl-C) and started again: the command runs on meanwhile, and is followed again. OUTPUT_DIR wants to be in a
# bucket: the disks of TPUs that are taken away go with them.
# Required: what create.sh wants (its flags are handed to it), and a command.   Optional:
#   --max_failures=3     so many times in a row in which workers were lost or crashed within --healthy seconds
#   --healthy=1800       a run that lasted so long begins that count anew
#   --delete_when_done   delete the TPUs once the command has ended with 0
#   --job, --logs, --every, --patience   as for run.sh;   --extras, --ignore_uncommitted   as for setup.sh
#   --internal_ip, --tunnel_through_iap   how the workers are reached, as gcloud has it
#   --dry_run            print the commands of one round and run none; --help
# Exit codes: 0 done; 75 it was told to stop, by run.sh --stop; 2 the command was wrong; otherwise that of what failed.
# The TPUs stay, and are billed, until delete.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=queued_resource.sh
. "$(dirname "${BASH_SOURCE[0]}")/queued_resource.sh"
here=$(dirname "${BASH_SOURCE[0]}")

max_failures=3 healthy=1800 every="" delete="" creating=() setting_up=() running=() command=()
while [ $# -gt 0 ]; do
  case $1 in
    --topology=* | --accelerator_type=* | --slices=* | --runtime_version=* | --valid_until_duration=*) creating+=("$1") ;;
    --spot | --on_demand | --reserved) creating+=("$1") ;;
    --extras=* | --ignore_uncommitted) setting_up+=("$1") ;;
    --job=* | --logs=* | --patience=*) running+=("$1") ;;
    --every=*) every=${1#*=} ;;
    --delete_when_done) delete=1 ;;
    --max_failures=*) max_failures=${1#*=} ;;
    --healthy=*) healthy=${1#*=} ;;
    --)
      shift
      command=("$@")
      break
      ;;
    *) take_flag "$1" || refuse_flag "$1" ;;
  esac
  shift
done
[ ${#creating[@]} -gt 0 ] || fail 2 "which TPUs?" "Give what create.sh wants: --topology or --accelerator_type; --spot, --on_demand or --reserved."
[ ${#command[@]} -gt 0 ] || fail 2 "which command?" "Give it after --: watch.sh --name=... -- python -m cptjax.main ..."
require_resource

case " ${command[*]}" in
  *OUTPUT_DIR=*gs://*) ;;
  *OUTPUT_DIR=*) say "note: OUTPUT_DIR is no bucket (gs://...): what is on the disks of TPUs that are taken away is lost." ;;
esac

which=(--name="$name" --zone="$zone" --project="$project" ${dry_run:+--dry_run})
which+=(${reach_flags[@]+"${reach_flags[@]}"})

get_tpus() { "$here/create.sh" "${which[@]}" "${creating[@]}" --replace --wait --every="${every:-60}"; }
set_up() { "$here/setup.sh" "${which[@]}" ${setting_up[@]+"${setting_up[@]}"}; }
run() { "$here/run.sh" "${which[@]}" ${running[@]+"${running[@]}"} ${every:+--every="$every"} "$@"; }

if [ -n "$dry_run" ]; then
  get_tpus
  set_up
  run -- "${command[@]}"
  [ -z "$delete" ] || "$here/delete.sh" "${which[@]}"
  exit
fi

failures=0
while :; do
  get_tpus || exit
  began=$SECONDS code=0
  run --attach || code=$?
  if [ $code = 4 ]; then # none is running: the first time, or on new TPUs, or after its end
    code=0
    if set_up; then run -- "${command[@]}" || code=$?; else code=69; fi
  fi
  case $code in
    0) break ;;
    5) fail 75 "job was told to stop, and saved. The same command goes on." "The TPUs of $name are there, and billed: delete.sh deletes them." ;;
    1 | 2) fail $code "the command failed; its last words are in the logs." "The TPUs of $name are there, and billed: delete.sh deletes them." ;;
    75) say "stopped with everything saved, or the TPUs were taken: starting it again." ;;
    *)
      [ $((SECONDS - began)) -lt "$healthy" ] || failures=0
      failures=$((failures + 1))
      [ $failures -lt "$max_failures" ] || fail $code "workers were lost or crashed $failures times in a row, last with code $code." \
        "The TPUs of $name are there, and billed: delete.sh deletes them."
      say "workers were lost or crashed (code $code): starting it again."
      ;;
  esac
  sleep "${every:-60}"
done
say "done."
if [ -n "$delete" ]; then "$here/delete.sh" "${which[@]}" --yes; else say "The TPUs of $name are there, and billed: delete.sh deletes them."; fi
