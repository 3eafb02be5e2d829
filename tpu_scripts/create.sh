#!/usr/bin/env bash
# Asks for a TPU slice, or several, by a queued resource. Asked for one that is there already, it says so and changes nothing.
#   tpu_scripts/create.sh --name=pod --zone=us-east5-a --project=mine --topology=v5p:4x4x4 --spot --wait
# Required: --name, --zone (or CLOUDSDK_COMPUTE_ZONE), --project (or CLOUDSDK_CORE_PROJECT); one of
#   --spot               cheaper, and taken away without asking: watch.sh gets it back and goes on
#   --on_demand          billed until it is deleted
#   --reserved           from a reservation that the project has
# and one of
#   --topology=G:SHAPE   as gin/jobs/plan.gin has it: v4:4x4x4, v5e:4x4, v5p:8x8x8, v6e:16x16
#   --accelerator_type=T as Google names it: v4-128, v5litepod-16, v5p-1024, v6e-256 (v4 and v5p count cores, two a chip)
# Optional:
#   --slices=N           so many of them, joined by the data center's network (1)
#   --runtime_version=V  the VM's image (that of the generation)
#   --valid_until_duration=6h   give up if it is not there by then
#   --wait               until it can be used; --every=60: ask so often (seconds)
#   --replace            if it was taken away or failed, delete what is left of it and ask again
#   --dry_run            print the commands and run none; --help
#   -- FLAGS             handed to gcloud as they are: --network=..., --service-account=...
# Exit codes: 0 asked for (with --wait: there), 1 gcloud or Google refused, 2 this command is wrong.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=queued_resource.sh
. "$(dirname "${BASH_SOURCE[0]}")/queued_resource.sh"

topology="" accelerator_type="" runtime_version="" slices=1 capacity="" wait="" replace="" every=60 further=()
while [ $# -gt 0 ]; do
  case $1 in
    --topology=*) topology=${1#*=} ;;
    --accelerator_type=*) accelerator_type=${1#*=} ;;
    --runtime_version=*) runtime_version=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --valid_until_duration=*) further+=("--valid-until-duration=${1#*=}") ;;
    --spot | --on_demand | --reserved)
      [ -z "$capacity" ] || [ "$capacity" = "$1" ] || fail 2 "$capacity and $1 exclude each other."
      capacity=$1
      ;;
    --wait) wait=1 ;;
    --replace) replace=1 ;;
    --every=*) every=${1#*=} ;;
    --)
      shift
      further+=("$@")
      break
      ;;
    *) take_flag "$1" || refuse_flag "$1" ;;
  esac
  shift
done

# Google's name for the shape, by the tables of cloud.google.com/tpu/docs/{v5e,v5p,v6e}. A name is a number of cores or chips, and
# has one shape: another shape of as many chips has none.
shape="" kind=()
name_shape() {
  local generation=${topology%%:*}
  shape=${topology#*:}
  case $generation in
    v4) kind=(--type=v4 "--topology=$shape") ;;
    v5e | v6e)
      local prefix=v5litepod
      [ "$generation" = v5e ] || prefix=v6e
      case $shape in
        1x1 | 2x2 | 2x4 | 4x4 | 4x8 | 8x8 | 8x16 | 16x16) kind=("--accelerator-type=$prefix-$((${shape%x*} * ${shape#*x}))") ;;
        *) fail 2 "$topology is no slice of $generation." "Those are 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16 and 16x16." ;;
      esac
      ;;
    v5p)
      case $shape in
        2x2x1 | 2x2x2 | 2x2x4 | 2x4x4 | 4x4x4 | 4x4x8 | 4x8x8 | 8x8x8 | 8x8x12 | 8x8x16 | 8x16x16 | 16x16x16 | 16x16x24)
          local sides
          IFS=x read -r -a sides <<< "$shape"
          kind=("--accelerator-type=v5p-$((2 * sides[0] * sides[1] * sides[2]))")
          ;;
        *) fail 2 "$topology is not the shape that Google's name for so many v5p stands for." \
          "Those are 2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4, 4x4x8, 4x8x8, 8x8x8, 8x8x12, 8x8x16, 8x16x16, 16x16x16, 16x16x24." \
          "Others: gcloud alpha compute tpus queued-resources create ... --type=v5p --topology=$shape" ;;
      esac
      ;;
    tpu7x) fail 2 "Google's queued resources have no tpu7x." "It is had through GKE or Compute Engine: docs/tpu.md, GKE." ;;
    *) fail 2 "--topology=$topology is not understood." "It is a generation and a shape, as v5p:4x4x4: v4, v5e, v5p or v6e." ;;
  esac
}

if [ -n "$topology" ] && [ -n "$accelerator_type" ]; then fail 2 "--topology and --accelerator_type say the same: give one."; fi
if [ -n "$topology" ]; then
  name_shape
elif [ -n "$accelerator_type" ]; then
  kind=("--accelerator-type=$accelerator_type")
else
  fail 2 "which TPU?" "Give --topology, as it was planned (v5p:4x4x4), or --accelerator_type, as Google names it (v5p-128)."
fi
[ -n "$capacity" ] || fail 2 "--spot, --on_demand or --reserved?" "They differ in price and in whether the TPU is taken away: --help."
[[ $slices =~ ^[1-9][0-9]*$ ]] || fail 2 "--slices=$slices is no number of slices."
require_resource

if [ -z "$runtime_version" ]; then # by cloud.google.com/tpu/docs/runtimes
  case ${topology:-$accelerator_type} in
    v5e* | v5lite*) runtime_version=v2-alpha-tpuv5-lite ;;
    v5p*) runtime_version=v2-alpha-tpuv5 ;;
    v6e*) runtime_version=v2-alpha-tpuv6e ;;
    *) runtime_version=tpu-ubuntu2204-base ;;
  esac
fi
nodes=("--node-id=$name")
[ "$slices" = 1 ] || nodes=("--node-count=$slices" "--node-prefix=$name")
[ "$capacity" = --on_demand ] || further=("$capacity" ${further[@]+"${further[@]}"})

ask_for_it() {
  queued_resources create "$name" "${kind[@]}" --runtime-version="$runtime_version" "${nodes[@]}" ${further[@]+"${further[@]}"}
}

delete_what_is_left() { queued_resources delete "$name" --force --quiet; }

if [ -n "$dry_run" ]; then
  state_of_resource
  [ -z "$replace" ] || delete_what_is_left
  ask_for_it
  exit
fi

refuse_another_kind() {
  local node="tpu.nodeSpec[0].node" said there sides count
  said=$(queued_resources describe "$name" \
    --format="value[separator=\",\"]($node.acceleratorType,$node.acceleratorConfig.topology,tpu.nodeSpec[0].multisliceParams.nodeCount)")
  IFS=, read -r there sides count <<< "$said"
  case " ${kind[*]} " in
    *" --type="*) [ "$sides" = "$shape" ] || [ -z "$there$sides" ] || another "${there:-"$sides of v4"}" ;;
    *"--accelerator-type=$there "*) ;;
    *) [ -z "$there$sides" ] || another "${there:-"$sides of v4"}" ;;
  esac
  [ "${count:-1}" = "$slices" ] || another "${there:-TPU} of ${count:-1} slices, not $slices"
}
another() { fail 2 "there is a $name in $zone, and it is a $1." "Ask by another --name, or delete that one."; }

asked=0 before="" replaced="" silent=0
while :; do
  if ! state=$(state_of_resource); then # a network that comes and goes is no reason to end a watch of days
    silent=$((silent + 1))
    if [ -z "$wait" ] || [ $silent = 30 ]; then exit 1; fi
    sleep "$every"
    continue
  fi
  silent=0
  [ "$state" = "$before" ] || say "$name is $state"
  if [ -z "$before" ] && [ "$state" != ABSENT ]; then refuse_another_kind; fi
  before=$state
  if [ "$state" = ACTIVE ] && [ -n "$replace" ] && lost_a_node; then state=SUSPENDED; fi
  case $state in
    ACTIVE) exit 0 ;;
    ABSENT)
      [ $asked = 0 ] || [ -n "$replaced" ] || fail 1 "$name was deleted by somebody while this waited for it."
      replaced=""
      ask_for_it
      asked=$((asked + 1))
      ;;
    SUSPENDED | FAILED)
      if [ -z "$replace" ] || [ $asked = 5 ]; then
        queued_resources describe "$name" --format='yaml(state)' >&2 || true
        fail 1 "$name is $state: it will not come back by itself." "Why stands above. --replace deletes what is left of it and asks again, five times."
      fi
      delete_what_is_left
      replaced=1
      continue
      ;;
    SUSPENDING | DELETING) [ -n "$wait" ] || fail 1 "$name is $state." "--wait waits for the end of that, and goes on." ;;
  esac
  [ -n "$wait" ] || exit 0
  sleep "$every"
done
