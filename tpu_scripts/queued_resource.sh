# shellcheck shell=bash
# One queued resource: the flags that name it, what state it is in, and commands on its workers. Sourced by the scripts beside it.
# They run on the bash 3.2 of a Mac too: no associative arrays, no mapfile.

name="" zone="${CLOUDSDK_COMPUTE_ZONE-}" project="${CLOUDSDK_CORE_PROJECT-}" dry_run="" reach=() reach_flags=()

say() { printf '%s\n' "$*" >&2; }

# fail CODE MESSAGE...: each further message on its own line.
fail() {
  local code=$1
  shift
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# = 0 ] || printf '  %s\n' "$@" >&2
  exit "$code"
}

# The comment at the head of the script that runs.
show_help() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

# take_flag FLAG: one of the flags that all scripts know, or status 1.
take_flag() {
  case $1 in
    --help) show_help && exit 0 ;;
    --dry_run) dry_run=1 ;;
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --internal_ip | --tunnel_through_iap)
      # shellcheck disable=SC2034 # watch.sh hands reach_flags on
      reach=("${1//_/-}") reach_flags=("$1")
      ;;
    *) return 1 ;;
  esac
}

refuse_flag() {
  case $1 in
    --*=*) fail 2 "there is no flag ${1%%=*}." "--help lists them." ;;
    *) fail 2 "cannot read '$1'." "Flags are written --flag=value; --help lists them." ;;
  esac
}

# Ends with code 2 unless there is a name, a zone, a project, and gcloud.
require_resource() {
  [ -n "$name" ] || fail 2 "which queued resource?" "Give --name=NAME: the one that create.sh makes, or made."
  [[ $name =~ ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$ ]] ||
    fail 2 "--name=$name is no name that Google Cloud takes." "Lower-case letters, digits and dashes, a letter first, 63 at most."
  [ -n "$zone" ] || fail 2 "in which zone?" "Give --zone=ZONE, or set CLOUDSDK_COMPUTE_ZONE." \
    "The zones where your project has TPUs: gcloud compute tpus locations list"
  [ -n "$project" ] || fail 2 "in which project?" "Give --project=PROJECT, or set CLOUDSDK_CORE_PROJECT." \
    "Your projects: gcloud projects list"
  require_gcloud
}

require_gcloud() {
  [ -n "$dry_run" ] || command -v gcloud > /dev/null ||
    fail 2 "gcloud is not installed." "https://cloud.google.com/sdk/docs/install, then: gcloud auth login"
}

# quoted WORD...: the words as a POSIX shell reads them back, whatever is in them.
quoted() {
  local LC_ALL=C word rest line=""
  for word in "$@"; do
    case $word in
      '' | *[!A-Za-z0-9_./:=,@%+-]*)
        rest=$word word="'"
        while [[ $rest == *\'* ]]; do
          word+="${rest%%\'*}'\\''"
          rest=${rest#*\'}
        done
        word+="$rest'"
        ;;
    esac
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# cloud WORD...: gcloud with these words, or, in a dry run, the command as it would be.
cloud() {
  if [ -n "$dry_run" ]; then quoted gcloud "$@"; else gcloud "$@"; fi
}

queued_resources() {
  local verb=$1
  shift
  cloud compute tpus queued-resources "$verb" "$@" --zone="$zone" --project="$project"
}

# on_workers NODES WORKERS COMMAND: the command's output from each; both may be "all". --quiet: a key for ssh is made unasked.
on_workers() {
  queued_resources ssh "$name" ${reach[@]+"${reach[@]}"} --node="$1" --worker="$2" --command="$3" --quiet
}

# ABSENT, or the state that Google gives it: WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, SUSPENDED, FAILED, ...
state_of_resource() {
  local state complaint
  complaint=$(mktemp)
  if state=$(queued_resources describe "$name" --format='value(state.state)' 2> "$complaint"); then
    printf '%s\n' "$state"
  elif grep -q NOT_FOUND "$complaint"; then
    printf 'ABSENT\n'
  else
    cat "$complaint" >&2
    rm -f "$complaint"
    fail 1 "gcloud cannot say what state $name is in." "Signed in? gcloud auth login. The TPU API on? gcloud services enable tpu.googleapis.com"
  fi
  rm -f "$complaint"
}

# The names of its nodes, one a line: one node a slice.
nodes_of_resource() {
  queued_resources describe "$name" --format='value[delimiter="\n"](tpu.nodeSpec[].nodeId)'
}

# job_on_worker VERB JOB WORD...: a line of shell for a worker, where setup.sh brought the script.
job_on_worker() { quoted bash cptjax/tpu_scripts/on_worker/job.sh "$@"; }

# of_node NODE FIELD: a field of one of its nodes, such as state (READY, PREEMPTED, ...) or networkEndpoints.len() (its workers).
of_node() { cloud compute tpus tpu-vm describe "$1" --format="value($2)" --zone="$zone" --project="$project"; }

# Sets node_count and workers (of each node). gcloud answers 0 for a node that it could not reach, so what answers is counted.
# shellcheck disable=SC2034 # for those who call it
count_workers() {
  local nodes
  nodes=$(nodes_of_resource) || return 1
  node_count=$(wc -w <<< "$nodes" | tr -d ' ')
  workers=$(of_node "${nodes%%$'\n'*}" 'networkEndpoints.len()') || return 1
  [[ $workers =~ ^[1-9][0-9]*$ ]]
}

# Whether one of its nodes was taken away: a resource may be called ACTIVE for a while after that.
lost_a_node() {
  local node state
  for node in $(nodes_of_resource); do
    state=$(of_node "$node" state 2> /dev/null) || continue
    case $state in
      PREEMPTED | TERMINATED)
        say "node $node is $state"
        return 0
        ;;
    esac
  done
  return 1
}
