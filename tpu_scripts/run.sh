#!/usr/bin/env bash
# Runs a command on all workers of a queued resource at once, follows it, and gathers each worker's log.
#   tpu_scripts/run.sh --name=pod --zone=us-east5-a --project=mine -- python -m cptjax.main --gin_file=gin/recipes/reuse.gin ...
# The words after -- arrive as they are given, in ~/cptjax, with setup.sh's Python first in PATH. The command goes on when this script,
# the connection or the laptop ends: --attach follows it again. Of what runs, worker 0 of node 0 is shown (it speaks for all of them).
# Required: --name, --zone, --project, as for create.sh; a command, or --attach or --stop.   Optional:
#   --job=NAME           several jobs of one resource are told apart by it (run)
#   --attach             follow the one that is running; code 4 if none is
#   --stop               tell it to stop (SIGTERM: a training saves and ends with 75), and follow it to its end
#   --detach             start it and return
#   --logs=FOLDER        where the logs go, a file for each worker, NODE-WORKER.log (tpu_logs/NAME/JOB)
#   --every=30           ask so often, in seconds
#   --patience=20        so many times in a row in which not all workers answer
#   --internal_ip, --tunnel_through_iap   how the workers are reached, as gcloud has it
#   --dry_run            print the commands and run none; --help
# Exit codes: 0 it ended so on every worker; 75 stopped with everything saved, or the TPUs were taken away: start it again (watch.sh
# does); 5 it was told to stop, and saved; 2 the command was wrong, here or on a worker; 4 nothing to attach to; 69 gcloud or the
# workers do not answer; 70 a worker was restarted under it; otherwise the code of a worker that failed, 1 before others.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=queued_resource.sh
. "$(dirname "${BASH_SOURCE[0]}")/queued_resource.sh"

job=run mode=start logs="" every=30 patience=20 detach=""
while [ $# -gt 0 ]; do
  case $1 in
    --job=*) job=${1#*=} ;;
    --attach) mode=attach ;;
    --stop) mode=stop ;;
    --detach) detach=1 ;;
    --logs=*) logs=${1#*=} ;;
    --every=*) every=${1#*=} ;;
    --patience=*) patience=${1#*=} ;;
    --)
      shift
      break
      ;;
    *) take_flag "$1" || refuse_flag "$1" ;;
  esac
  shift
done
[[ $job =~ ^[A-Za-z0-9_]+$ ]] || fail 2 "--job=$job is no name for a job." "Letters, digits and underscores."
if [ $mode = start ]; then
  [ $# -gt 0 ] || fail 2 "which command?" "Give it after --: run.sh --name=... -- python -m cptjax.main ..."
else
  [ $# = 0 ] || fail 2 "--$mode takes no command."
fi
require_resource

logs=${logs:-tpu_logs/$name/$job}
attempt=$(date -u +%Y%m%dT%H%M%SZ).$$ # in the order of time, and no two alike
said="" # what gcloud says of its connections, a line for each worker each time
ask() { on_workers all all "$(job_on_worker status "$job")" 2>> "${said:-/dev/stderr}"; }

# fetch NODE WORKER FILE: what its log has beyond what the file has. Another run.sh may follow the same job: each has its own files
# while it follows.
fetch() {
  local have=0
  [ ! -e "$3" ] || have=$(wc -c < "$3")
  on_workers "$1" "$2" "$(job_on_worker log "$job" $((have)))" >> "$3" 2>> "${said:-/dev/stderr}"
}

if [ -n "$dry_run" ]; then
  case $mode in
    start) on_workers all all "$(job_on_worker start "$job" "$attempt" "$@")" ;;
    stop) on_workers all all "$(job_on_worker stop "$job")" ;;
  esac
  [ -z "$detach" ] || exit 0
  nodes_of_resource
  printf '# and of the first node that this names:\n'
  of_node "$name" 'networkEndpoints.len()'
  ask
  printf '# and of each worker of each node, at the end:\n'
  on_workers 0 0 "$(job_on_worker log "$job" 0)"
  exit
fi

mkdir -p "$logs"
said=$logs/gcloud.log

gone() {
  local state
  state=$(state_of_resource) || return 1
  if [ "$state" = ACTIVE ]; then
    lost_a_node || return 1
  fi
  fail 75 "the TPUs of $name are gone: it is $state." "What was saved is where OUTPUT_DIR is. watch.sh gets TPUs again and goes on."
}

count_workers || { gone || fail 69 "gcloud cannot tell the workers of $name." "create.sh --wait waits until it has some."; }

answers=""
# Whether every worker answers; `answers` is what they say, a line each, the last of each: cptjax-job HOST ATTEMPT STATE CODE.
all_answer() {
  answers=$(ask | awk '/^cptjax-job / { last[$2] = $0 } END { for (host in last) print last[host] }' | sort) || true
  [ "$(grep -c . <<< "$answers")" = $((node_count * workers)) ]
}
# What a worker says of an earlier attempt is no answer to how this one went: there it was lost, or never begun.
of_this_attempt() {
  [ $mode = start ] || attempt=$(awk '$3 != "none" { print $3 }' <<< "$answers" | sort | tail -n 1)
  answers=$(awk -v attempt="$attempt" '$3 != attempt { $4 = "lost"; $5 = "-" } { print }' <<< "$answers")
}
hosts_that_are() { awk -v state="$1" '$4 == state { print $2 }' <<< "$answers"; }

case $mode in
  start)
    on_workers all all "$(job_on_worker start "$job" "$attempt" "$@")" || {
      gone || fail 69 "the command did not start on every worker; what they say stands above." \
        "Not set up: setup.sh. Running already: --attach follows it, --stop ends it."
    }
    if [ -n "$detach" ]; then
      all_answer || fail 69 "not all of the $((node_count * workers)) workers answer: $said." "--attach follows the job."
    fi
    ;;
  attach)
    tries=1
    until all_answer || [ -z "$answers" ]; do # none answers on TPUs that are not set up
      [ $tries -lt "$patience" ] || fail 69 "not all of the $((node_count * workers)) workers answer: $said."
      tries=$((tries + 1))
      sleep "$every"
    done
    [ -n "$(hosts_that_are running)" ] || exit 4
    ;;
  stop) on_workers all all "$(job_on_worker stop "$job")" || say "not every worker could be told; asking how they are." ;;
esac

begun() {
  local without
  without=$(awk -v attempt="$attempt" '$3 != attempt { print $2 }' <<< "$answers" | paste -s -d ' ' -)
  [ $mode != start ] || [ -z "$without" ] || fail 69 "on $without the job was not started; gcloud did not reach it." "--stop stops the others."
}
if [ -n "$detach" ]; then
  begun
  say "job $job runs on $((node_count * workers)) workers; --attach follows it, --stop stops it."
  exit
fi

shown="" unanswered=0 since_failure=0
while :; do
  if all_answer; then
    unanswered=0
    if [ -z "$shown" ]; then
      begun
      of_this_attempt
      logs=$logs/$attempt
      mkdir -p "$logs"
      shown=0 followed=$logs/.0-0.$$
      trap '[ ! -e "$followed" ] || mv "$followed" "$logs/0-0.log"' EXIT
    fi
    of_this_attempt
    fetch 0 0 "$followed" || true
    tail -c "+$((shown + 1))" "$followed"
    shown=$(wc -c < "$followed")
    [ -n "$(hosts_that_are running)" ] || break
    # A worker that failed leaves the others waiting for it. They have a supervisor that ends them; this is for what has none.
    if awk '$4 == "lost" || ($4 == "exited" && $5 != 0) { found = 1 } END { exit !found }' <<< "$answers"; then
      since_failure=$((since_failure + 1))
      if [ $since_failure = 10 ]; then
        say "some workers ended, others did not: $(hosts_that_are running | paste -s -d ' ' -). Stopping them."
        on_workers all all "$(job_on_worker stop "$job")" || true
      fi
    fi
  else
    unanswered=$((unanswered + 1))
    gone || say "$(grep -c . <<< "$answers" || true) of $((node_count * workers)) workers answer; $name is ACTIVE."
    [ $unanswered -lt "$patience" ] || fail 69 "not all workers of $name answered $patience times in a row: $said." "The job may be running: --attach."
  fi
  sleep "$every"
done

gather() {
  local own=$logs/.$1-$2.$$
  fetch "$1" "$2" "$own" || say "the log of node $1, worker $2 could not be had whole."
  mv "$own" "$logs/$1-$2.log"
}

node=0 behind=0
while [ $node -lt "$node_count" ]; do
  worker=0
  while [ $worker -lt "$workers" ]; do
    gather $node $worker &
    behind=$((behind + 1))
    [ $((behind % 8)) != 0 ] || wait
    worker=$((worker + 1))
  done
  node=$((node + 1))
done
wait

awk '$4 != "exited" || $5 != 0 { print $2 ": " $4 " " $5 }' <<< "$answers" >&2
say "the logs are in $logs."
code=$(awk '
  { code = $4 == "lost" ? 70 : $5 }
  $4 == "stopped" && (code == 75 || code == 0) { told = 1; next }
  code == 2 { wrong = 1 } code == 1 { failed = 1 } code == 75 { stopped = 1 }
  code != 0 && code != 1 && code != 2 && code != 75 && (!other || other == 76) { other = code }   # 76: it lost another one
  END { print wrong ? 2 : failed ? 1 : other ? other : told ? 5 : stopped ? 75 : 0 }' <<< "$answers")
[ $mode != stop ] || [ "$code" != 5 ] || code=0
exit "$code"
