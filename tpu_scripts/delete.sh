#!/usr/bin/env bash
# Deletes a queued resource and its TPUs, and with them the disks of their VMs: what is worth keeping is in a bucket by then.
#   tpu_scripts/delete.sh --name=pod --zone=us-east5-a --project=mine
# Required: --name, --zone (or CLOUDSDK_COMPUTE_ZONE), --project (or CLOUDSDK_CORE_PROJECT).   Optional:
#   --yes        do not ask
#   --dry_run    print the command and run none; --help
# Exit codes: 0 it is gone, or was not there; 1 gcloud or Google refused; 2 this command is wrong.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=queued_resource.sh
. "$(dirname "${BASH_SOURCE[0]}")/queued_resource.sh"

sure=""
while [ $# -gt 0 ]; do
  case $1 in
    --yes) sure=1 ;;
    *) take_flag "$1" || refuse_flag "$1" ;;
  esac
  shift
done
require_resource

if [ -z "$dry_run" ]; then
  state=$(state_of_resource)
  if [ "$state" = ABSENT ]; then
    say "there is no queued resource $name in $zone of $project: nothing to delete."
    exit 0
  fi
  if [ -z "$sure" ]; then
    [ -t 0 ] || fail 2 "nobody is here to be asked whether $name should go." "--yes deletes without asking."
    read -r -p "$name ($state, $zone, $project) and the disks of its VMs will be gone. Write its name to delete it: " answer
    [ "$answer" = "$name" ] || fail 2 "'$answer' is not its name: nothing was deleted."
  fi
fi
queued_resources delete "$name" --force --quiet # --force: its nodes too; --quiet: it has been asked
[ -n "$dry_run" ] || say "$name is deleted."
